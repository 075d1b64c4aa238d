"""Connections to the API server, and in words why there is none."""

from __future__ import annotations

import os
import socket
import ssl

import aiohttp
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from cos_operator.kube_errors import Request, Unavailable


class RestClient(RESTClientObject):
    """With connections that the kernel ends when what they sent stays unacknowledged for `seconds`.

    Without it a cut network delivers a request minutes later, when it is mended, though nobody waits for it any more
    and the process that sent it is frozen or gone.
    """

    def __init__(self, configuration: Configuration, seconds: float) -> None:
        super().__init__(configuration)
        self._unacknowledged_limit = round(1000 * seconds)

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(
            limit=self.maxsize, ssl=self.ssl_context, socket_factory=self._create_socket
        )

    def _create_socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, *_ = address
        created = socket.socket(family, kind, protocol)
        created.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._unacknowledged_limit)
        return created


def unreachable(request: Request, server: str, cause: Exception) -> Unavailable:
    """The error for a request that got no answer because of `cause`."""
    remedy = ""
    match cause:
        case aiohttp.ClientConnectorCertificateError():
            text = f"its certificate is not trusted: {said(cause.certificate_error)}"
            remedy = (
                "correct certificate-authority, server or tls-server-name of the cluster in the kubeconfig"
            )
        case aiohttp.ClientProxyConnectionError():
            text = f"its proxy {cause.host}:{cause.port} cannot be reached: {said(cause.os_error)}"
            remedy = "correct proxy-url of the cluster in the kubeconfig"
        case aiohttp.ClientConnectorDNSError():
            text = f"the name {cause.host} is not known: {said(cause.os_error)}"
            remedy = "check server of the cluster in the kubeconfig, and that you are in its network"
        case aiohttp.ClientConnectorError():
            text = said(cause.os_error)
        case _:
            text = said(cause)
    error = Unavailable(request, f"{server}: {text}")
    error.remedy = remedy
    return error


def said(error: Exception) -> str:
    """What an error says, without where in a library or in which words of C."""
    match error:
        case ssl.SSLCertVerificationError():
            return error.verify_message
        case ssl.SSLError() if error.reason:
            return f"TLS: {error.reason.replace('_', ' ').lower()}"
        case OSError(errno=int(number)) if number > 0:
            return os.strerror(number)
        case OSError(strerror=str(words)):
            return words
    return str(error) or type(error).__name__
