"""Answers to cdk-nag, given next to what they concern."""

import aws_cdk as cdk
from constructs import IConstruct

# How CDK names the output through which other stacks learn the bucket's ARN. It follows from the bucket's logical
# id, which a test holds still; if it ever moves, synth fails and prints the new name.
_BUCKET_ARN_OUTPUT = "PublishOutputFnGetAttBucket83908E77Arn0F129B3B"


def acknowledge(scope: IConstruct, reason: str, *findings: str) -> None:
    """Accept `findings` (bracketed ids, as synth prints them) on `scope` and below, with one reason."""
    answers = [cdk.Acknowledgment(id=each, reason=reason) for each in findings]
    cdk.Validations.of(scope).acknowledge(*answers)


def wildcard(resource: str) -> str:
    """The id of the finding that a policy names a resource with an asterisk."""
    return f"AwsSolutions-IAM5[Resource::{resource}]"


def objects(data: cdk.Stack, prefix: str) -> str:
    """The id of the finding that a policy names every object under a prefix of the data stack's bucket."""
    region = '{"Ref":"AWS::Region"}'
    reference = f'"StackName":"{data.stack_name}","Region":{region},"OutputName":"{_BUCKET_ARN_OUTPUT}"'
    return wildcard(f'{{"Fn::GetStackOutput":{{{reference}}}}}/{prefix}*')


def own(service: str, resource: str) -> str:
    """The id of the finding on an ARN of this account and region."""
    return wildcard(f"arn:<AWS::Partition>:{service}:<AWS::Region>:<AWS::AccountId>:{resource}")
