"""Alarms with their topic, the observer of releases, the dashboard and the budget."""

import aws_cdk as cdk
from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from stacks.classify import ClassifyStack
from stacks.config import StageSettings
from stacks.data import DataStack
from stacks.hosting.stack import HostingStack
from stacks.operations.alarms import all_alarms
from stacks.operations.dashboard import dashboard
from stacks.operations.observer import Observer
from stacks.pipeline.stack import PipelineStack
from stacks.release import ReleaseStack


class OperationsStack(cdk.Stack):
    """Alarms that notify one topic, what watches releases and tells it too, a dashboard, a budget."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        settings: StageSettings,
        hosting: HostingStack,
        classify: ClassifyStack,
        release: ReleaseStack,
        pipeline: PipelineStack,
        data: DataStack,
    ) -> None:
        super().__init__(scope, id_, description=f"{settings.name}: alarms, dashboard and budget")
        topic = AlarmTopic(self, "Alarms", key=data.key, email=settings.operations.email).topic
        observer = Observer(self, "Observer", settings=settings, data=data, hosting=hosting, topic=topic)
        alarms = all_alarms(
            self,
            settings,
            endpoint=hosting.metrics,
            classify=classify,
            release=release,
            pipeline=pipeline,
            observer=observer,
        )
        for each in alarms:
            each.add_alarm_action(actions.SnsAction(topic))
            each.add_ok_action(actions.SnsAction(topic))
        board = dashboard(self, settings, hosting, classify, alarms)
        monthly_budget(self, settings, topic)
        tell_of_failed_runs(self, pipeline, topic)
        if not settings.removable and settings.operations.email is None:
            heard = f"{settings.name}: nobody hears the alarms. Set operations.email, or subscribe to AlarmTopicArn."
            cdk.Annotations.of(self).add_warning_v2("kennel:alarms-unheard", heard)
        cdk.CfnOutput(self, "AlarmTopicArn", value=topic.topic_arn)
        cdk.CfnOutput(self, "DashboardName", value=board.dashboard_name)


class AlarmTopic(Construct):
    """An encrypted topic that CloudWatch and Budgets of this account and EventBridge's rules may write to.

    AWS's own key for SNS would not do: none of them may use it.
    """

    def __init__(self, scope: Construct, id_: str, *, key: kms.Key, email: str | None) -> None:
        super().__init__(scope, id_)
        self.topic = sns.Topic(self, "Topic", master_key=key, enforce_ssl=True)
        account = {"StringEquals": {"aws:SourceAccount": cdk.Aws.ACCOUNT_ID}}
        for sender in ("cloudwatch.amazonaws.com", "budgets.amazonaws.com"):
            principal = iam.ServicePrincipal(sender, conditions=account)
            self.topic.grant_publish(principal)
            key.grant(principal, "kms:Decrypt", "kms:GenerateDataKey*")
        # Without a condition: EventBridge names no source account to the key, and each event would be lost unheard.
        key.grant(iam.ServicePrincipal("events.amazonaws.com"), "kms:Decrypt", "kms:GenerateDataKey*")
        if email:
            self.topic.add_subscription(subscriptions.EmailSubscription(email))


def tell_of_failed_runs(scope: Construct, pipeline: PipelineStack, topic: sns.Topic) -> events.Rule:
    """Return the rule that tells `topic` when a run of the pipeline has failed, the gate's rejection included."""
    pattern = events.EventPattern(
        source=["aws.sagemaker"],
        detail_type=["SageMaker Model Building Pipeline Execution Status Change"],
        detail={"pipelineArn": [pipeline.pipeline_arn], "currentPipelineExecutionStatus": ["Failed"]},
    )
    text = events.RuleTargetInput.from_text(
        f"The pipeline run {events.EventField.from_path('$.detail.pipelineExecutionArn')} failed: "
        "`kennel status` says at which step and why."
    )
    return events.Rule(scope, "RunFailed", event_pattern=pattern, targets=[targets.SnsTopic(topic, message=text)])


# Percent of the budget at which a notice goes out: actual cost twice, and the forecast of the month's end.
_NOTICES = (("ACTUAL", 80), ("ACTUAL", 100), ("FORECASTED", 100))


def monthly_budget(scope: Construct, settings: StageSettings, topic: sns.Topic) -> budgets.CfnBudget:
    """Return a budget on the whole account's cost, in US dollars.

    A filter by tag would read zero until somebody activates the tag for billing, and then nobody would be told.
    """
    limit = budgets.CfnBudget.SpendProperty(amount=settings.operations.budget_usd_per_month, unit="USD")
    budget = budgets.CfnBudget(
        scope,
        "Budget",
        budget=budgets.CfnBudget.BudgetDataProperty(budget_type="COST", time_unit="MONTHLY", budget_limit=limit),
        notifications_with_subscribers=[_notice(kind, percent, topic) for kind, percent in _NOTICES],
    )
    budget.node.add_dependency(topic.node.find_child("Policy"))  # Budgets may write to it from the start
    return budget


def _notice(kind: str, percent: int, topic: sns.Topic) -> budgets.CfnBudget.NotificationWithSubscribersProperty:
    notification = budgets.CfnBudget.NotificationProperty(
        comparison_operator="GREATER_THAN", notification_type=kind, threshold=percent, threshold_type="PERCENTAGE"
    )
    subscriber = budgets.CfnBudget.SubscriberProperty(subscription_type="SNS", address=topic.topic_arn)
    return budgets.CfnBudget.NotificationWithSubscribersProperty(notification=notification, subscribers=[subscriber])
