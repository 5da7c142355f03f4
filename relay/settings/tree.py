"""The settings tree: every value an operator may choose, with its default and its bounds.

The tree is frozen and refuses what it does not know. Making a `Settings` reads nothing; `relay.settings.load`
brings the sources together. The string below a field is its documentation, and `relay check` prints it.
"""

from __future__ import annotations

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from relay.settings.branches import (
    AuthSettings,
    DialSettings,
    EgressSettings,
    LimitSettings,
    ListenSettings,
    PolicySettings,
    QuicSettings,
    QuotaSettings,
    ResolverSettings,
    TelemetrySettings,
    TemplateSettings,
    TlsSettings,
    TokenSettings,
)
from relay.settings.branches.bounds import SfToken

__all__ = ["Settings"]


class Settings(BaseSettings):
    """All settings of a relay. Constructing it reads neither files nor the environment."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        hide_input_in_errors=True,
    )

    identity: SfToken = "masque-relay"
    """The relay's name in `Proxy-Status` (RFC 9209 §2); a service's name, not a machine's."""
    listen: ListenSettings = Field(default_factory=ListenSettings)
    tls: TlsSettings = Field(default_factory=TlsSettings)
    quic: QuicSettings = Field(default_factory=QuicSettings)
    templates: TemplateSettings = Field(default_factory=TemplateSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    tokens: TokenSettings = Field(default_factory=TokenSettings)
    policy: PolicySettings = Field(default_factory=PolicySettings)
    resolver: ResolverSettings = Field(default_factory=ResolverSettings)
    egress: EgressSettings = Field(default_factory=EgressSettings)
    quotas: QuotaSettings = Field(default_factory=QuotaSettings)
    dial: DialSettings = Field(default_factory=DialSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)

    @model_validator(mode="after")
    def _engine_can(self) -> Settings:
        if self.tls.client_certificates != "off" and self.quic.engine == "qh3":
            wrong = "qh3 cannot ask clients for certificates; the engine aioquic can"
            raise ValueError(f"tls.client_certificates, quic.engine: {wrong}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from the constructor only: `relay.settings.load` is the one reader of the sources."""
        return (init_settings,)
