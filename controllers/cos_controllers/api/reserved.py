"""Engine parameters that the operator owns, refused by name in `parameters` and `settings`.

Each is either rendered by the operator (addresses, paths, credentials, limits) or would let a value leave the
engine's own configuration (loading modules, running commands).
"""

from __future__ import annotations

POSTGRES = (
    "allow_alter_system",
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "archive_mode",
    "archive_timeout",
    "cluster_name",
    "config_file",
    "data_directory",
    "data_sync_retry",
    "dynamic_library_path",
    "external_pid_file",
    "fsync",
    "full_page_writes",
    "hba_file",
    "ident_file",
    "include",
    "include_dir",
    "include_if_exists",
    "jit_provider",
    "lc_messages",
    "listen_addresses",
    "local_preload_libraries",
    "log_destination",
    "logging_collector",
    "password_encryption",
    "port",
    "recovery_end_command",
    "reserved_connections",
    "restore_command",
    "session_preload_libraries",
    "shared_preload_libraries",
    "ssl",
    "superuser_reserved_connections",
    "synchronous_standby_names",
)
POSTGRES_PREFIXES = ("primary_", "recovery_target", "ssl_", "unix_socket_")

REDIS = (
    "aclfile",
    "appenddirname",
    "appendfilename",
    "appendonly",
    "bind",
    "daemonize",
    "dbfilename",
    "dir",
    "enable-debug-command",
    "enable-module-command",
    "include",
    "loadmodule",
    "logfile",
    "maxclients",
    "maxmemory",
    "pidfile",
    "port",
    "protected-mode",
    "rename-command",
    "replicaof",
    "requirepass",
    "slaveof",
    "supervised",
    "syslog-enabled",
    "unixsocket",
    "user",
)

REDIS_PREFIXES = ("cluster-", "master", "tls-")

ELASTICSEARCH = (
    "cluster.initial_master_nodes",
    "cluster.name",
    "http.bind_host",
    "http.host",
    "http.port",
    "http.publish_host",
    "http.publish_port",
    "node.attr.cos_config",
    "node.name",
)
ELASTICSEARCH_PREFIXES = (
    "discovery.",
    "http.ssl.",
    "network.",
    "path.",
    "readiness.",
    "transport.",
    "xpack.security.",
)

NEO4J = (
    "db.logs.query.enabled",
    "dbms.security.auth_enabled",
    "initial.dbms.default_database",
    "server.bolt.enabled",
    "server.bolt.listen_address",
    "server.bolt.tls_level",
    "server.default_advertised_address",
    "server.default_listen_address",
    "server.http.enabled",
    "server.http.listen_address",
    "server.jvm.additional",
    "server.logs.config",
    "server.logs.user.config",
    "server.memory.heap.initial_size",
    "server.memory.heap.max_size",
    "server.memory.pagecache.size",
)
NEO4J_PREFIXES = ("dbms.ssl.", "server.directories.", "server.https.")
