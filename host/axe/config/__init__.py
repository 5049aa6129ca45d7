"""The configuration: `axe.toml`, checked before anything is opened.

Whatever is wrong is a ConfigError of one line that names the setting by its path, says what
was expected, and shows no value that could be a secret.
"""

from .loading import load
from .masking import kind_of_url, looks_secret, masked_url, tls_warnings
from .model import (
    NAME,
    TOPIC,
    BatchConfig,
    Config,
    FailureConfig,
    FloodConfig,
    HostConfig,
    LettersConfig,
    LogConfig,
    MisfitConfig,
    ProcessorConfig,
    TopicConfig,
    parse_start,
)
from .properties import refusal
from .wording import did_you_mean, one_line

__all__ = [
    "NAME",
    "TOPIC",
    "BatchConfig",
    "Config",
    "FailureConfig",
    "FloodConfig",
    "HostConfig",
    "LettersConfig",
    "LogConfig",
    "MisfitConfig",
    "ProcessorConfig",
    "TopicConfig",
    "did_you_mean",
    "kind_of_url",
    "load",
    "looks_secret",
    "masked_url",
    "one_line",
    "parse_start",
    "refusal",
    "tls_warnings",
]
