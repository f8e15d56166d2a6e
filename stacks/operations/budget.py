"""The month's bill, watched."""

from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_sns as sns
from constructs import Construct

from stacks.config import StageSettings

# When to tell, in percent of the budget: nearly there, reached, and bound to be exceeded by the month's end.
_NOTICES = (("ACTUAL", 80), ("ACTUAL", 100), ("FORECASTED", 100))


def monthly_budget(scope: Construct, settings: StageSettings, topic: sns.Topic) -> budgets.CfnBudget:
    """A budget on the whole account's cost, in US dollars.

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
