"""When a step is tried again: whenever the fault is AWS's own, or a lack of capacity."""

SERVICE_RETRIES = {
    "ExceptionType": ["Step.SERVICE_FAULT", "Step.THROTTLING"],
    "IntervalSeconds": 15,
    "BackoffRate": 2.0,
    "MaxAttempts": 5,
}
JOB_RETRIES = [
    SERVICE_RETRIES,
    {"ExceptionType": ["SageMaker.JOB_INTERNAL_ERROR"], "IntervalSeconds": 60, "BackoffRate": 2.0, "MaxAttempts": 2},
    {
        "ExceptionType": ["SageMaker.CAPACITY_ERROR", "SageMaker.RESOURCE_LIMIT"],
        "IntervalSeconds": 300,
        "BackoffRate": 2.0,
        "ExpireAfterMin": 240,
    },
]
