"""Where alarms and budget notices go."""

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

_SENDERS = ("cloudwatch.amazonaws.com", "budgets.amazonaws.com")


class AlarmTopic(Construct):
    """An encrypted topic that CloudWatch and Budgets of this account may write to.

    AWS's own key for SNS would not do: neither service may use it.
    """

    def __init__(self, scope: Construct, id_: str, *, key: kms.Key, email: str | None) -> None:
        super().__init__(scope, id_)
        self.topic = sns.Topic(self, "Topic", master_key=key, enforce_ssl=True)
        account = {"StringEquals": {"aws:SourceAccount": cdk.Aws.ACCOUNT_ID}}
        for sender in _SENDERS:
            principal = iam.ServicePrincipal(sender, conditions=account)
            self.topic.grant_publish(principal)
            key.grant(principal, "kms:Decrypt", "kms:GenerateDataKey*")
        if email:
            self.topic.add_subscription(subscriptions.EmailSubscription(email))
