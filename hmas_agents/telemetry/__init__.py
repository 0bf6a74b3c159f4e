"""What did a tick spend its time on? OpenTelemetry spans, when an endpoint is configured."""
