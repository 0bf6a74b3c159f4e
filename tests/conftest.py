"""What holds for every test: hypothesis never judges by the clock of a busy machine."""

from hypothesis import HealthCheck, settings

settings.register_profile("hmas", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hmas")
