"""Where moto 5.2.5 differs from AWS in what our stacks rely on."""

import json
import traceback

import moto.cloudformation.models as cloudformation
import moto.cloudformation.responses as responses
import moto.elbv2.models as elbv2
from moto.autoscaling.models import FakeAutoScalingGroup, autoscaling_backends
from moto.cloudformation import parsing, utils
from moto.cloudformation.exceptions import ValidationError
from moto.ec2.models import ec2_backends
from moto.ec2.models.instances import Instance
from moto.ec2.models.launch_templates import LaunchTemplate
from moto.ec2.models.route_tables import RouteTable
from moto.ec2.models.vpcs import VPCEndPoint
from moto.elbv2.models import FakeListener, FakeLoadBalancer, FakeTargetGroup, elbv2_backends
from moto.iam.models import Role
from moto.ssm.models import Parameter, ssm_backends


def install():
    """Puts all of it into place."""
    change_sets()
    attributes()
    no_values()
    parameters()
    balancers()
    groups()
    instances()
    routes()
    roles()
    endpoints()
    ssm()


def pairs(attributes):
    return {attribute["Key"]: attribute["Value"] for attribute in attributes or []}


def text(value):
    """A parameter's value as it was given."""
    return ",".join(value) if isinstance(value, list) else str(value)


def change_sets():
    """`aws cloudformation deploy` makes change sets: moto forgets outputs and exports over them, and never rolls back."""
    execute_change_set = cloudformation.CloudFormationBackend.execute_change_set

    def execute(self, change_set_name, stack_name=None):
        change_set = self.describe_change_set(change_set_name)
        stack = self.stacks[change_set.stack_id]
        stack.cross_stack_resources = stack.resource_map.cross_stack_resources = self.exports
        for name in [name for name, export in self.exports.items() if export.exporting_stack_id == stack.stack_id]:
            del self.exports[name]
        try:
            execute_change_set(self, change_set_name, stack_name)
        except Exception as error:  # noqa: BLE001 - whatever it is, the stack is rolled back and says why
            traceback.print_exc()
            stack.status = "ROLLBACK_COMPLETE" if change_set.change_set_type == "CREATE" else "UPDATE_ROLLBACK_COMPLETE"
            stack._add_stack_event(stack.status, resource_status_reason=str(error)[:400])
            return
        stack._parse_template()
        stack.output_map = stack._create_output_map()
        stack.parameters = change_set.parameters
        for export in stack.exports:
            if export.value is None:
                # Its output's condition does not hold.
                continue
            if export.name in self.exports:
                raise ValidationError(stack.stack_id, f"{export.name} is exported already")
            self.exports[export.name] = export
        for output in stack.output_map.values():
            assert output is None or output.value not in (None, ""), f"the output {output.key} is empty"

    cloudformation.CloudFormationBackend.execute_change_set = execute
    delete_stack = cloudformation.CloudFormationBackend.delete_stack

    def deleting(self, name_or_stack_id):
        for stack in self.stacks.values():
            if name_or_stack_id in (stack.name, stack.stack_id):
                for export in stack.exports:
                    # What was never exported is taken back all the same.
                    self.exports.setdefault(export.name, export)
        return delete_stack(self, name_or_stack_id)

    cloudformation.CloudFormationBackend.delete_stack = deleting
    # A change set without changes is one that failed, not an error of the call.
    responses.CloudFormationResponse._validate_different_update = lambda *_, **__: None

    # What is deployed is compared with what was given, not with what it resolved to (an image's id where a path stood).
    def same_parameters(self, given):
        resolved = self.resource_map.resolved_parameters
        return all(
            text(value) in (text(self.parameters.get(name)), text(resolved.get(name)))
            for name, value in (given or {}).items()
            if value is not None
        )

    cloudformation.Stack.has_parameters = same_parameters

    # A parameter has changed if its value has, not if it was given this time and not the last; what a condition leaves out
    # is not there to be changed; and an update reaches the group whose launch template has changed.
    build_diff = parsing.ResourceMap.build_resource_diff

    def diff(self, other_template, parameters=None):
        known = self.resolved_parameters
        changed = {
            name: given for name, given in (parameters or {}).items() if given is not None and text(known.get(name)) != text(given)
        }
        actions = build_diff(self, other_template, changed)
        modify = [name for name in actions["Modify"] if self._parsed_resources.get(name) is not None]
        resources = other_template["Resources"]
        for name, resource in resources.items():
            if resource["Type"] == "AWS::AutoScaling::AutoScalingGroup" and name in self._resource_json_map:
                if resource["Properties"]["LaunchTemplate"]["LaunchTemplateId"]["Ref"] in modify and name not in modify:
                    modify.append(name)
        return {**actions, "Modify": modify}

    parsing.ResourceMap.build_resource_diff = diff


def attributes():
    """`!GetAtt A.B.C` is the attribute B.C of A."""
    construct = utils.yaml_tag_constructor

    def constructing(loader, tag, node):
        if tag == "!GetAtt" and isinstance(node.value, str):
            return {"Fn::GetAtt": node.value.split(".", 1)}
        return construct(loader, tag, node)

    for module in (cloudformation, responses):
        module.yaml_tag_constructor = constructing


def no_values():
    """An item of a list that is AWS::NoValue is no item."""
    clean = parsing.clean_json

    def cleaning(value, resources):
        cleaned = clean(value, resources)
        return [item for item in cleaned if item is not None] if isinstance(value, list) else cleaned

    parsing.clean_json = cleaning


def parameters():
    """What moto makes of parameters."""
    # On a redeploy it looks up the value of an SSM parameter as if it were the parameter's name.
    parse = parsing.ResourceMap.parse_ssm_parameter

    def lenient(self, value, value_type):
        return value if value.startswith("ami-") else parse(self, value, value_type)

    parsing.ResourceMap.parse_ssm_parameter = lenient

    # And a list that is a parameter's default stays one text.
    load = parsing.ResourceMap.load_parameters

    def loading(self):
        # What a template says to be as before comes as it was resolved; what was empty comes as nothing.
        self.input_parameters = {name: text(value) for name, value in self.input_parameters.items() if value is not None}
        load(self)
        for name, slot in self._template.get("Parameters", {}).items():
            value = self.resolved_parameters[name]
            if (slot["Type"] == "CommaDelimitedList" or slot["Type"].startswith("List<")) and isinstance(value, str):
                self.resolved_parameters[name] = self._parsed_resources[name] = value.split(",")

    parsing.ResourceMap.load_parameters = loading


def balancers():
    """moto's templates drop a load balancer's type and every attribute, and lack two GetAtts."""

    # Its ARN says "app" whatever it is; all of ours are network load balancers.
    application = elbv2.make_arn_for_load_balancer
    elbv2.make_arn_for_load_balancer = lambda **where: application(**where).replace(":loadbalancer/app/", ":loadbalancer/net/")

    def create_balancer(cls, resource_name, cloudformation_json, account_id, region_name, **_):
        properties = cloudformation_json["Properties"]
        backend = elbv2_backends[account_id][region_name]
        balancer = backend.create_load_balancer(
            name=resource_name,
            security_groups=properties.get("SecurityGroups"),
            subnet_ids=properties["Subnets"],
            subnet_mappings=[],
            scheme=properties["Scheme"],
            loadbalancer_type=properties["Type"],
        )
        balancer.enforced_on_private_link = properties.get("EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic")
        given = pairs(properties["LoadBalancerAttributes"])
        unknown = set(given) - set(FakeLoadBalancer.VALID_ATTRS)
        if unknown:
            raise ValidationError(resource_name, f"unknown attributes {unknown}")
        backend.modify_load_balancer_attributes(balancer.arn, given)
        return balancer

    FakeLoadBalancer.create_from_cloudformation_json = classmethod(create_balancer)
    attribute = FakeLoadBalancer.get_cfn_attribute
    FakeLoadBalancer.get_cfn_attribute = (
        lambda self, name: self.arn.split("loadbalancer/", 1)[1] if name == "LoadBalancerFullName" else attribute(self, name)
    )
    delete = FakeLoadBalancer.delete_from_cloudformation_json.__func__

    def delete_balancer(cls, resource_name, cloudformation_json, account_id, region_name):
        balancer = elbv2_backends[account_id][region_name].load_balancers.get(resource_name)
        if balancer and balancer.attrs.get("deletion_protection.enabled") == "true":
            raise ValidationError(resource_name, "the load balancer is protected from deletion")
        delete(cls, resource_name, cloudformation_json, account_id, region_name)

    FakeLoadBalancer.delete_from_cloudformation_json = classmethod(delete_balancer)

    def after(cls, then):
        create = cls.create_from_cloudformation_json.__func__

        def creating(cls, resource_name, cloudformation_json, account_id, region_name, **more):
            made = create(cls, resource_name, cloudformation_json, account_id, region_name, **more)
            then(made, cloudformation_json["Properties"], elbv2_backends[account_id][region_name])
            return made

        cls.create_from_cloudformation_json = classmethod(creating)

    after(FakeTargetGroup, lambda made, given, backend: backend.modify_target_group_attributes(made.arn, pairs(given["TargetGroupAttributes"])))
    after(FakeListener, lambda made, given, backend: backend.modify_listener_attributes(made.arn, given["ListenerAttributes"]))
    names = {"TargetGroupFullName": lambda group: group.arn.split(":")[-1], "TargetGroupName": lambda group: group.name}
    FakeTargetGroup.has_cfn_attr = classmethod(lambda cls, name: name in names)
    FakeTargetGroup.get_cfn_attribute = lambda self, name: names[name](self)

    def delete_targets(cls, resource_name, cloudformation_json, account_id, region_name):
        elbv2_backends[account_id][region_name].target_groups.pop(resource_name, None)

    FakeTargetGroup.delete_from_cloudformation_json = classmethod(delete_targets)


def groups():
    """moto's templates drop an Auto Scaling group's hooks, and an update throws the group away."""
    create = FakeAutoScalingGroup.create_from_cloudformation_json.__func__

    def creating(cls, resource_name, cloudformation_json, account_id, region_name, **more):
        group = create(cls, resource_name, cloudformation_json, account_id, region_name, **more)
        properties = cloudformation_json["Properties"]
        for state in group.instance_states:
            state.instance.launch_version = group.launch_template_version
        for hook in properties.get("LifecycleHookSpecificationList", []):
            autoscaling_backends[account_id][region_name].create_lifecycle_hook(
                name=hook["LifecycleHookName"],
                as_name=group.name,
                transition=hook["LifecycleTransition"],
                timeout=int(hook["HeartbeatTimeout"]),
                result=hook["DefaultResult"],
            )
        return group

    def updating(cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name):
        properties = cloudformation_json["Properties"]
        # Instances that run stay as they are until something replaces them.
        version = str(properties["LaunchTemplate"]["Version"])
        original_resource.launch_template_version = original_resource.provided_launch_template_version = version
        original_resource.min_size = int(properties["MinSize"])
        original_resource.max_size = int(properties["MaxSize"])
        return original_resource

    FakeAutoScalingGroup.create_from_cloudformation_json = classmethod(creating)
    FakeAutoScalingGroup.update_from_cloudformation_json = classmethod(updating)
    attribute = LaunchTemplate.get_cfn_attribute
    # A version is text, in a group as in an instance.
    LaunchTemplate.get_cfn_attribute = lambda self, name: str(attribute(self, name))


def instances():
    """moto's templates know no instance that is made from a launch template."""
    create = Instance.create_from_cloudformation_json.__func__

    def creating(cls, resource_name, cloudformation_json, account_id, region_name, **more):
        properties = cloudformation_json["Properties"]
        given = properties.pop("LaunchTemplate")
        template = ec2_backends[account_id][region_name].get_launch_template(given["LaunchTemplateId"])
        data = dict(template.get_version(int(given["Version"])).data)
        profile = data.pop("IamInstanceProfile")["Arn"].rpartition("/")[2]
        made_of = {**data, "IamInstanceProfile": profile, **properties}
        made = create(cls, resource_name, {**cloudformation_json, "Properties": made_of}, account_id, region_name, **more)
        properties["LaunchTemplate"] = given
        return made

    Instance.create_from_cloudformation_json = classmethod(creating)


def routes():
    """A route table that its subnets are gone from can be deleted; moto keeps the associations that templates made."""

    def deleting(cls, resource_name, cloudformation_json, account_id, region_name):
        backend = ec2_backends[account_id][region_name]
        backend.route_tables[resource_name]._associations.clear()
        backend.delete_route_table(resource_name)

    RouteTable.delete_from_cloudformation_json = classmethod(deleting)


def roles():
    """A policy within a role is JSON, as every other."""
    put = Role.put_policy

    def putting(self, policy_name, policy_json):
        put(self, policy_name, policy_json if isinstance(policy_json, str) else json.dumps(policy_json))

    Role.put_policy = putting


def endpoints():
    """An endpoint to a service that wants to be asked waits, and has names like AWS's."""
    create = VPCEndPoint.create_from_cloudformation_json.__func__

    def creating(cls, resource_name, cloudformation_json, account_id, region_name, **more):
        endpoint = create(cls, resource_name, cloudformation_json, account_id, region_name, **more)
        service = endpoint.service_name.rpartition(".")[2]
        if service.startswith("vpce-svc-"):
            configuration = endpoint.ec2_backend.get_vpc_endpoint_service(service)
            if configuration is None:
                raise ValidationError(resource_name, f"there is no service {endpoint.service_name}")
            endpoint.state = "pendingAcceptance" if configuration.acceptance_required else "available"
        return endpoint

    VPCEndPoint.create_from_cloudformation_json = classmethod(creating)

    def named(self, name):
        if name == "Id":
            return self.id
        service = self.service_name.rpartition(".")[2]
        return [f"Z1HUB23UULQXV:{self.id}-1a2b3c4d.{service}.{self.ec2_backend.region_name}.vpce.amazonaws.com"]

    VPCEndPoint.get_cfn_attribute = named
    VPCEndPoint.has_cfn_attr = classmethod(lambda cls, name: name in ("Id", "DnsEntries"))


def ssm():
    """A parameter's new value is a new version, not another parameter."""

    def updating(cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name):
        properties = cloudformation_json["Properties"]
        backend = ssm_backends[account_id][region_name]
        backend.put_parameter(
            name=original_resource.name,
            description=properties.get("Description"),
            value=properties["Value"],
            parameter_type=properties["Type"],
            allowed_pattern=None,
            keyid=None,
            overwrite=True,
            tags=[],
            data_type="text",
            tier=None,
            policies=None,
        )
        return original_resource

    Parameter.update_from_cloudformation_json = classmethod(updating)
