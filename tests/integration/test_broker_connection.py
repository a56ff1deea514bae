"""What people are told when there is no way to the broker: the setting by name, and never the password."""

import asyncio
import gc

import pytest

from builder.adapters.rabbitmq.connection import connect, connected
from builder.errors import BrokerAway, BrokerDenied, SettingsError
from builder.rabbitmq_settings import Rabbitmq
from tests.broker_parts import Vhost

pytestmark = pytest.mark.integration


async def test_a_connection(vhost: Vhost) -> None:
    """The plain case, and the second of two hosts where the first is away."""
    for url in (vhost.url, f"amqp://guest:guest@127.0.0.1:1/,{vhost.url}"):
        async with connected(Rabbitmq.model_validate({"url": url})) as connection:
            assert not connection.is_closed


async def test_tls(vhost: Vhost) -> None:
    """With the broker's authority, and with a certificate of our own as well."""
    broker = vhost.broker
    ours = {"certFile": str(broker.cert_file), "keyFile": str(broker.key_file)}
    for more in ({}, ours):
        settings = vhost.settings(url=broker.url_of(vhost.name, tls=True), tls={"caFile": str(broker.ca_file)} | more)
        async with connected(settings) as connection:
            assert not connection.is_closed


async def test_no_way_in(vhost: Vhost) -> None:
    """One line for each: it is the account, the vhost, the authority, or the name in the certificate."""
    broker, plain, tls = vhost.broker, vhost.url, vhost.broker.url_of(vhost.name, tls=True)
    secret = plain.replace("guest:guest", "guest:s3cret")
    cases = [
        (secret, None, BrokerDenied, r"rabbitmq\.url: amqp://guest:\*\*\*@127.* refuses the user or the password"),
        (broker.url_of("nope"), None, BrokerDenied, r"rabbitmq\.url: .*/nope: there is no such vhost, or the user may"),
        (tls, None, BrokerDenied, r"rabbitmq\.tls\.caFile: the system's authorities cannot verify .*: self-signed"),
        (plain.replace("amqp:", "amqps:"), None, BrokerDenied, r"rabbitmq\.url: .* does not speak TLS as it should"),
        ("amqp://guest:s3cret@127.0.0.1:1/", None, BrokerAway, r"no broker at .*:\*\*\*@127.*: Connection refused"),
        (tls, "nowhere.crt", SettingsError, r"rabbitmq\.tls\.caFile: nowhere\.crt cannot be used: No such file"),
    ]
    for url, ca_file, error, message in cases:
        settings = Rabbitmq.model_validate({"url": url, "tls": {"caFile": ca_file}})
        with pytest.raises(error, match=message) as caught:
            await connect(settings)
        assert "s3cret" not in str(caught.value)


async def test_a_connection_that_failed_leaves_nothing_to_close(vhost: Vhost) -> None:
    """The garbage collector cannot close it in a thread without an event loop, and would say so on stderr."""
    gc.disable()
    try:
        for url in ("amqp://guest:guest@127.0.0.1:1/", vhost.broker.url_of("nope")):
            with pytest.raises((BrokerAway, BrokerDenied)):
                await connect(Rabbitmq.model_validate({"url": url}))
        await asyncio.to_thread(gc.collect)
    finally:
        gc.enable()


async def test_a_silent_broker(vhost: Vhost) -> None:
    """One that accepts and says nothing is away, after the time that it had."""
    vhost.broker.freeze()
    try:
        with pytest.raises(BrokerAway, match=r"rabbitmq\.url: no answer from .* within 0\.1 s"):
            await connect(vhost.settings(connectTimeout="100ms"))
    finally:
        vhost.broker.thaw()


async def test_no_url() -> None:
    with pytest.raises(SettingsError, match=r"rabbitmq\.url: is not set"):
        await connect(Rabbitmq())
