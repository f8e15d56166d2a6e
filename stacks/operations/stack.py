"""What somebody is told, and what they look at then."""

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from constructs import Construct

from stacks.classify import ClassifyStack
from stacks.config import StageSettings
from stacks.data import DataStack
from stacks.hosting.stack import HostingStack
from stacks.operations.alarm_topic import AlarmTopic
from stacks.operations.alarms import classify_alarms, endpoint_alarms, release_alarms
from stacks.operations.budget import monthly_budget
from stacks.operations.dashboard import dashboard
from stacks.release import ReleaseStack


class OperationsStack(cdk.Stack):
    """Alarms to one topic, a dashboard, a budget."""

    def __init__(
        self,
        scope: Construct,
        id_: str,
        *,
        settings: StageSettings,
        hosting: HostingStack,
        classify: ClassifyStack,
        release: ReleaseStack,
        data: DataStack,
    ) -> None:
        super().__init__(scope, id_, description=f"{settings.name}: alarms, dashboard and budget")
        topic = AlarmTopic(self, "Alarms", key=data.key, email=settings.operations.email).topic
        alarms: list[cloudwatch.Alarm] = [
            *endpoint_alarms(self, settings.operations, hosting.metrics),
            *classify_alarms(self, settings, classify),
            *release_alarms(self, release),
        ]
        for each in alarms:
            each.add_alarm_action(actions.SnsAction(topic))
            each.add_ok_action(actions.SnsAction(topic))
        board = dashboard(self, settings, hosting, classify, alarms)
        monthly_budget(self, settings, topic)
        cdk.CfnOutput(self, "AlarmTopicArn", value=topic.topic_arn)
        cdk.CfnOutput(self, "DashboardName", value=board.dashboard_name)
