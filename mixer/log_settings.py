"""Settings of the feature log and of feedback."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from mixer.frozen import Frozen, beside_the_file, url_beside_the_file


class ShipSettings(Frozen):
    """Where the files of a log go once they are whole; every one is tried until it is there."""

    to: Annotated[str, Field(min_length=1), AfterValidator(url_beside_the_file)]
    """A folder, or any fsspec URL (s3://…, gs://…, abfs://…), whose credentials come from the environment."""
    keep_s: NonNegativeFloat = 0.0
    """How long a file stays here after it was shipped."""
    max_bytes: PositiveInt = 4 << 30
    """Of whole files here: the oldest beyond are dropped and counted, shipped or not."""
    retry_max_s: PositiveFloat = 60.0
    """The longest pause between two tries."""


class ParquetSinkSettings(Frozen):
    """Files of a local folder, by the hour: `date=YYYY-MM-DD/hour=HH/<uuid>.parquet`."""

    kind: Literal["parquet"]
    folder: Annotated[Path, AfterValidator(beside_the_file)]
    file_rows: PositiveInt = 10_000
    file_s: PositiveFloat = 60.0
    """Time after which a file ends, and its rows can be read."""
    file_bytes: PositiveInt = 64 << 20
    """Of rows, before they are packed."""
    ship: ShipSettings | None = None


class OtlpSinkSettings(Frozen):
    """A log record a row, its body JSON; where it goes is set by the standard OTEL_* variables."""

    kind: Literal["otlp"]


class KafkaSinkSettings(Frozen):
    """A message a row, its key the query id and its value JSON; needs the extra `kafka`."""

    kind: Literal["kafka"]
    servers: Annotated[str, Field(min_length=1)]
    """`host:port`, comma-separated."""
    topic: Annotated[str, Field(min_length=1)]
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Of librdkafka, by its own names."""

    @field_validator("options")
    @classmethod
    def _holds_no_secret(
        cls, options: dict[str, str | int | float | bool]
    ) -> dict[str, str | int | float | bool]:
        if "sasl.password" in options:
            raise ValueError("sasl.password must not stand in a file; set MIXER_KAFKA_PASSWORD instead")
        return options


class FeatureLogSettings(Frozen):
    """What was served, and from what: a row a request, written beside the request path."""

    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Of the requests, by a hash of the query id."""
    queue: PositiveInt = 1024
    """Answers that wait to be written, each held in memory whole; those beyond are dropped and counted."""
    query: Literal["raw", "hash", "drop"] = "hash"
    """How the user's words are kept. Facts about a user in the context, and features made of them, always are."""
    inputs: bool = False
    """Also log the document fields that features are made from, so that they can be made again."""
    drain_s: PositiveFloat = 5.0
    """How long writing may go on at the end."""
    sinks: tuple[
        Annotated[ParquetSinkSettings | OtlpSinkSettings | KafkaSinkSettings, Field(discriminator="kind")],
        ...,
    ]

    @model_validator(mode="after")
    def _can_be_made_again(self) -> FeatureLogSettings:
        if self.inputs and self.query != "raw":
            raise ValueError("inputs are of no use without the query: set query to raw")
        return self

    @model_validator(mode="after")
    def _goes_somewhere(self) -> FeatureLogSettings:
        if not self.sinks:
            raise ValueError("names no sink")
        return self


class FeedbackSettings(Frozen):
    """Where events go that callers send with Feedback, and how long they count."""

    folder: Annotated[Path, AfterValidator(beside_the_file)]
    """Of Parquet files by hour; several servers may share it."""
    window_s: PositiveFloat = 3600.0
    """How long after its search an event counts, and for how long an event that is sent again is known."""
    remembered: PositiveInt = 100_000
    """Events, and searches, that the server keeps in mind at most."""
    queue: PositiveInt = 10_000
    """Events that may wait for the disk."""
    rows: PositiveInt = 100_000
    seconds: PositiveFloat = 60.0
    """A file is done at so many rows, or so long after its first."""
    ship: ShipSettings | None = None
