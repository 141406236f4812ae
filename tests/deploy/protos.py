"""Configuration messages of TensorFlow Serving that its Python package leaves out.

Put together from their public field names and numbers, so that configuration files are parsed as
the server parses them: an unknown field or a wrong type is an error.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

_F = descriptor_pb2.FieldDescriptorProto
_KINDS = {"bool": _F.TYPE_BOOL, "string": _F.TYPE_STRING, "int64": _F.TYPE_INT64}
_WRAPPERS = wrappers_pb2.DESCRIPTOR.package
MESSAGES = {
    "BatchingParameters": [
        ("max_batch_size", "Int64Value"),
        ("batch_timeout_micros", "Int64Value"),
        ("max_enqueued_batches", "Int64Value"),
        ("num_batch_threads", "Int64Value"),
        ("thread_pool_name", "StringValue"),
        ("allowed_batch_sizes", "repeated int64"),
        ("pad_variable_length_inputs", "bool"),
    ],
    "PrometheusConfig": [("enable", "bool"), ("path", "string")],
    "MonitoringConfig": [("prometheus_config", "PrometheusConfig")],
    "SSLConfig": [
        ("server_key", "string"),
        ("server_cert", "string"),
        ("custom_ca", "string"),
        ("client_verify", "bool"),
    ],
}


def message_class(name):
    """Returns the class of one of `MESSAGES`."""
    package = "deploy.tests"
    file = descriptor_pb2.FileDescriptorProto(name="serving.proto", package=package)
    file.syntax = "proto3"
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    for message, fields in MESSAGES.items():
        added = file.message_type.add(name=message)
        for number, (field, kind) in enumerate(fields, start=1):
            *repeated, kind = kind.split()
            label = _F.LABEL_REPEATED if repeated else _F.LABEL_OPTIONAL
            of = added.field.add(name=field, number=number, label=label)
            if kind in _KINDS:
                of.type = _KINDS[kind]
            else:
                of.type = _F.TYPE_MESSAGE
                of.type_name = f".{package if kind in MESSAGES else _WRAPPERS}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
