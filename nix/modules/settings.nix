# Every key of the configuration file with its type, so that what the daemon would refuse is refused while evaluating. A test
# compares this list with the daemon's own (`tcfs config show`). Left out are the keys that hold a secret: the file lies in
# the Nix store, which everybody can read; for each of them there is one that names a file.
{ lib }:

let
  inherit (lib) mkOption types;

  # Null, the default: not in the file, so that the daemon's own default holds.
  key = type: description: mkOption {
    type = types.nullOr type;
    default = null;
    inherit description;
  };
  size = types.either types.ints.unsigned (types.strMatching "[0-9]+(\\.[0-9]+)? ?[KMGTkmgt]([Ii]?[Bb])?|[0-9]+ ?[Bb]?");
  span = types.strMatching "[0-9]+ ?(ms|s|sec|m|min|h|d)";
  path = types.strMatching "[/~].*";
  texts = types.listOf types.str;
in
{
  store = key (types.strMatching "(file://[/~]|s3://[^/]|[/~]).*") "Where the fleet's data lies: file:///DIR or s3://BUCKET/PREFIX.";
  state_dir = key path "Database, unpublished data, identity, log, socket.";
  mountpoint = key path "Where the drive is mounted.";
  device_name = key (types.strMatching "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?") "Name under which this machine enrols; else its host name.";
  conflict_mode = key (types.enum [ "auto" "interactive" "defer" ]) "What a path in conflict shows on this machine.";
  sync_git_dirs = key types.bool "Take git repositories along; otherwise .git stays on each machine.";
  git_sync_mode = key (types.enum [ "bundle" "raw" ]) "How repositories travel: as one unit, or file by file.";
  exclude_patterns = key texts "Names that never leave this machine (gitignore syntax).";
  write_mode = key (types.enum [ "back" ]) "When a write counts as done: the bytes are safe on this machine.";
  poll_interval = key span "How often the store is asked for news.";
  nats_url = key (types.strMatching "[^ ]+") "The event bus, several servers with commas; without it the store is polled.";

  nats = {
    token_file = key path "File with the token.";
    user = key types.str "User of the event bus.";
    password_file = key path "File with its password.";
    nkey_file = key path "File with the seed of an nkey.";
    creds_file = key path "NATS credentials file (JWT and seed).";
    ca_file = key path "Certificate authority for TLS, PEM; makes TLS a must.";
    hub = key types.str "JetStream domain of the hub, where the server is a leaf node.";
  };

  s3 = {
    endpoint = key (types.strMatching "https?://.+") "URL of the S3 server; none: AWS.";
    region = key types.str "Region.";
    allow_http = key types.bool "Accept an endpoint without TLS.";
    access_key_id_file = key path "File with the access key.";
    secret_access_key_file = key path "File with the secret key.";
    session_token_file = key path "File with the session token of temporary credentials.";
    credentials_file = key path "Credentials in AWS's shared format (INI).";
    profile = key types.str "Section of that file.";
  };

  cache = {
    max_bytes = key size "Most bytes kept here; else the smaller of 50GiB and a fifth of the disk.";
    dir = key path "Where hydrated bytes lie.";
    hydrate_whole_below = key size "Opening a smaller file brings all of it.";
    min_free = key size "Free space on that disk below which the cache shrinks.";
  };

  hydration = {
    deny = key texts "Programs that cannot open a file which is not all here.";
    cached_only = key texts "Programs that read what is here and bring nothing.";
    range_only = key texts "Programs that bring what they read and nothing around it.";
  };

  brake = {
    enabled = key types.bool "Whether many deletes at once wait for `tcfs approve` on other machines.";
    files = key types.ints.unsigned "So many files deleted or emptied within a minute are still few.";
    percent = key types.ints.unsigned "So is this share of what is in the drive; the greater of the two counts.";
  };

  gc.enabled = key types.bool "Whether this machine takes its turn in removing what nothing needs from the store.";

  nfs.port = key types.port "Port of the NFS server on the loopback; else chosen once and kept.";

  log = {
    level = key (types.enum [ "error" "warn" "info" "debug" "trace" ]) "How much the log tells.";
    max_bytes = key size "Size at which the log file is rotated.";
    keep = key types.ints.unsigned "Rotated log files kept.";
  };
}
