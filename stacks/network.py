"""The VPC of a stage that has one: isolated subnets, no NAT, and the endpoints that the workload needs."""

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from stacks.config import StageSettings
from stacks.permissions import acknowledge, allow, in_account

# What the workbench calls from inside the VPC. Jobs and the endpoint need none of these: their containers are
# isolated, and SageMaker moves their data through the S3 gateway.
_WORKBENCH = {
    "SageMakerApi": ec2.InterfaceVpcEndpointAwsService.SAGEMAKER_API,  # the notebook operates the stage
    "SageMakerRuntime": ec2.InterfaceVpcEndpointAwsService.SAGEMAKER_RUNTIME,  # the notebook asks the endpoint
    "Lambda": ec2.InterfaceVpcEndpointAwsService.LAMBDA_,  # and the function
    "Logs": ec2.InterfaceVpcEndpointAwsService.CLOUDWATCH_LOGS,
    "EcrApi": ec2.InterfaceVpcEndpointAwsService.ECR,  # the trainer pulls the training image
    "EcrDocker": ec2.InterfaceVpcEndpointAwsService.ECR_DOCKER,
    "Ssm": ec2.InterfaceVpcEndpointAwsService.SSM,  # Session Manager
    "SsmMessages": ec2.InterfaceVpcEndpointAwsService.SSM_MESSAGES,
}


class NetworkStack(cdk.Stack):
    """The `vpc`, and `subnet_ids` and `group_ids` (of security groups) for jobs and endpoint."""

    def __init__(self, scope: Construct, id_: str, *, settings: StageSettings) -> None:
        super().__init__(scope, id_, description=f"{settings.name}: isolated network")
        assert settings.network is not None
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr(settings.network.cidr),
            max_azs=None if settings.network.availability_zones else settings.network.zones,
            availability_zones=list(settings.network.availability_zones) or None,
            nat_gateways=0,
            subnet_configuration=[
                ec2.SubnetConfiguration(name="Isolated", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=26)
            ],
            # Emptying the default group takes a custom resource, and nothing here uses that group.
            restrict_default_security_group=False,
        )
        group = logs.LogGroup(
            self, "FlowLogs", retention=settings.log_retention, removal_policy=settings.removal_policy
        )
        self.vpc.add_flow_log("FlowLog", destination=ec2.FlowLogDestination.to_cloud_watch_logs(group))
        self.subnet_ids = [subnet.subnet_id for subnet in self.vpc.isolated_subnets]
        self.group_ids = [self._job_security_group().security_group_id]
        self._s3_gateway()
        if settings.workbench:
            self._interface_endpoints(settings.network.cidr)
        cdk.CfnOutput(self, "VpcId", value=self.vpc.vpc_id)

    def grant_attach(self, role: iam.Role) -> None:
        """Let SageMaker put what runs as `role` into the subnets and the group; the caller acknowledges the `*`."""
        describe = ("DhcpOptions", "NetworkInterfaces", "SecurityGroups", "Subnets", "Vpcs")
        allow(role, [f"ec2:Describe{what}" for what in describe], ["*"])
        interfaces = self._arn(role, "network-interface", "*")
        used = [self._arn(role, "security-group", group) for group in self.group_ids]
        used += [self._arn(role, "subnet", subnet) for subnet in self.subnet_ids]
        allow(role, ["ec2:CreateNetworkInterface"], [interfaces, *used])
        change = ("CreateNetworkInterfacePermission", "DeleteNetworkInterface", "DeleteNetworkInterfacePermission")
        allow(role, [f"ec2:{action}" for action in change], [interfaces])
        reason = "SageMaker makes the interfaces when something starts; their names are not known before."
        acknowledge(role, reason, in_account("ec2", "network-interface/*"))

    @staticmethod
    def _arn(role: iam.Role, kind: str, name: str) -> str:
        return cdk.Stack.of(role).format_arn(service="ec2", resource=kind, resource_name=name)

    def _job_security_group(self) -> ec2.SecurityGroup:
        group = ec2.SecurityGroup(
            self,
            "Jobs",
            vpc=self.vpc,
            description="Hosts of a job among themselves and HTTPS to AWS",
            allow_all_outbound=False,
        )
        # Encrypted traffic between hosts is IPsec (UDP 500 and protocol 50), so no list of TCP ports would do.
        group.connections.allow_internally(ec2.Port.all_traffic(), "Hosts of the same job")
        # The subnets have no route but to the S3 gateway and the endpoints, so "anywhere" is those.
        group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "S3 gateway and interface endpoints")
        return group

    def _s3_gateway(self) -> None:
        gateway = self.vpc.add_gateway_endpoint("S3", service=ec2.GatewayVpcEndpointAwsService.S3)
        own = {"StringEquals": {"aws:PrincipalAccount": self.account, "aws:ResourceAccount": self.account}}
        gateway.add_to_policy(
            iam.PolicyStatement(principals=[iam.StarPrincipal()], actions=["s3:*"], resources=["*"], conditions=own)
        )
        layers = f"arn:{self.partition}:s3:::prod-{self.region}-starport-layer-bucket/*"
        gateway.add_to_policy(  # ECR keeps the layers of images in this bucket of its own
            iam.PolicyStatement(principals=[iam.StarPrincipal()], actions=["s3:GetObject"], resources=[layers])
        )

    def _interface_endpoints(self, cidr: str) -> None:
        group = ec2.SecurityGroup(
            self, "Endpoints", vpc=self.vpc, description="HTTPS from within the VPC", allow_all_outbound=False
        )
        group.add_ingress_rule(ec2.Peer.ipv4(cidr), ec2.Port.tcp(443), "AWS APIs")
        # In one zone: the workbench needs no second one, and each endpoint is billed by the zone and hour.
        zone = ec2.SubnetSelection(subnets=self.vpc.isolated_subnets[:1])
        own = iam.PolicyStatement(
            principals=[iam.StarPrincipal()],
            actions=["*"],
            resources=["*"],
            conditions={"StringEquals": {"aws:PrincipalAccount": self.account}},
        )
        for id_, service in _WORKBENCH.items():
            endpoint = self.vpc.add_interface_endpoint(
                id_, service=service, subnets=zone, security_groups=[group], open=False
            )
            endpoint.add_to_policy(own)
