# What the modules for NixOS and Home Manager share: options, the configuration file that is made of them, and what is checked.
{ lib, pkgs, name }: # name: of the module's options, for messages

let
  inherit (lib) mkDefault mkEnableOption mkOption types;

  keys = import ./settings.nix { inherit lib; };
  toml = pkgs.formats.toml { };

  # An option for what is a key of the file, too; null: not in the file.
  option = key: default: description: mkOption {
    inherit (key) type;
    inherit default description;
  };
  # A file with a secret: a text, not a path, since Nix would copy what a path names into its store.
  secret = key: description: option key null "${description} Outside of the Nix store, as sops-nix and agenix make them." // { example = "/run/secrets/tcfs"; };

  isSet = v: v != null && v != { };
  # Without what is not set.
  compact = s: lib.filterAttrs (_: isSet) (builtins.mapAttrs (_: v: if builtins.isAttrs v then compact v else v) s);
  # `{ s3 = { region = x; }; }` → `[ "s3.region" ]`; a leaf is what `leaf` says.
  names = leaf: prefix: s: lib.concatMap (n: if leaf s.${n} then [ "${prefix}${n}" ] else names leaf "${prefix}${n}." s.${n}) (builtins.attrNames s);
  known = names (v: v ? type) "" keys;
  # Those of a configuration that are set.
  given = cfg: names (v: !(builtins.isAttrs v)) "" (compact cfg.settings);

  # Each secret that the daemon reads from a file: its name, and the file.
  secretsOf = cfg: {
    nats-token = cfg.nats.tokenFile;
    nats-password = cfg.nats.passwordFile;
    nats-nkey = cfg.nats.nkeyFile;
    nats-creds = cfg.nats.credsFile;
    s3-access-key-id = cfg.s3.accessKeyIdFile;
    s3-secret-access-key = cfg.s3.secretAccessKeyFile;
    s3-session-token = cfg.s3.sessionTokenFile;
    s3-credentials = cfg.s3.credentialsFile;
  };
  # Keys of the file that name such a file.
  isSecretFile = k: builtins.match ".*_file" k != null && k != "ca_file";
in
{
  options = {
    enable = mkEnableOption "the tcfs drive";

    package = mkOption {
      type = types.package;
      default = pkgs.tcfs or (pkgs.callPackage ../package.nix { });
      defaultText = lib.literalExpression "pkgs.tcfs";
      description = "The program.";
    };

    deviceName = option keys.device_name null "Name under which this machine enrols; else its host name.";

    store = option keys.store null "Where the fleet's data lies: file:///DIR or s3://BUCKET/PREFIX; else a directory of this machine's own.";

    conflictMode = option keys.conflict_mode "auto" "What a path in conflict shows here: the winner (auto) or this machine's own version (interactive, defer).";

    syncGitDirs = option keys.sync_git_dirs false "Take git repositories along; otherwise .git stays on each machine.";

    gitSyncMode = option keys.git_sync_mode "bundle" "How repositories travel: as one unit (bundle), or file by file (raw).";

    excludePatterns = option keys.exclude_patterns [ "*.swp" "*.swo" ".direnv" ] "Names that never leave this machine (gitignore syntax).";

    cacheMaxBytes = option keys.cache.max_bytes null "Most bytes kept here, such as 20GiB; else the smaller of 50GiB and a fifth of the disk.";

    logLevel = option keys.log.level "info" "How much the log tells.";

    natsUrl = option keys.nats_url null "The event bus, several servers with commas; without it the store is polled.";

    nats = {
      user = option keys.nats.user null "User of the event bus; nats.passwordFile has its password.";
      passwordFile = secret keys.nats.password_file "File with the password.";
      tokenFile = secret keys.nats.token_file "File with a token.";
      nkeyFile = secret keys.nats.nkey_file "File with the seed of an nkey.";
      credsFile = secret keys.nats.creds_file "NATS credentials file (JWT and seed).";
      caFile = option keys.nats.ca_file null "Certificate authority for TLS, PEM; makes TLS a must.";
      hub = option keys.nats.hub null "JetStream domain of the hub, where the server is a leaf node.";
    };

    s3 = {
      endpoint = option keys.s3.endpoint null "URL of the S3 server; none: AWS.";
      region = option keys.s3.region null "Region; else us-east-1.";
      allowHttp = option keys.s3.allow_http false "Accept an endpoint without TLS.";
      accessKeyIdFile = secret keys.s3.access_key_id_file "File with the access key.";
      secretAccessKeyFile = secret keys.s3.secret_access_key_file "File with the secret key.";
      sessionTokenFile = secret keys.s3.session_token_file "File with the session token of temporary credentials.";
      credentialsFile = secret keys.s3.credentials_file "Credentials in AWS's shared format (INI).";
      profile = option keys.s3.profile null "Section of that file; else default.";
    };

    settings = mkOption {
      type = types.submodule {
        freeformType = toml.type;
        options = keys;
      };
      default = { };
      example = { cache.hydrate_whole_below = "256MiB"; };
      description = ''
        Any key of the configuration file, by its name there (`tcfs config show` lists them). What is set here goes before the
        options above. Keys that this module does not know are for a newer tcfs.
      '';
    };
  };

  # What the options set, to be had for `settings`. `place` says under which path the daemon finds the secret of this name that
  # lies in this file.
  settings = cfg: place:
    let
      files = secretsOf cfg;
      file = secret: if files.${secret} == null then null else place secret files.${secret};
    in
    {
      device_name = mkDefault cfg.deviceName;
      store = mkDefault cfg.store;
      mountpoint = mkDefault cfg.mountpoint;
      conflict_mode = mkDefault cfg.conflictMode;
      sync_git_dirs = mkDefault cfg.syncGitDirs;
      git_sync_mode = mkDefault cfg.gitSyncMode;
      exclude_patterns = mkDefault cfg.excludePatterns;
      nats_url = mkDefault cfg.natsUrl;
      cache.max_bytes = mkDefault cfg.cacheMaxBytes;
      log.level = mkDefault cfg.logLevel;
      nats = {
        user = mkDefault cfg.nats.user;
        password_file = mkDefault (file "nats-password");
        token_file = mkDefault (file "nats-token");
        nkey_file = mkDefault (file "nats-nkey");
        creds_file = mkDefault (file "nats-creds");
        ca_file = mkDefault cfg.nats.caFile;
        hub = mkDefault cfg.nats.hub;
      };
      s3 = {
        endpoint = mkDefault cfg.s3.endpoint;
        region = mkDefault cfg.s3.region;
        allow_http = mkDefault cfg.s3.allowHttp;
        access_key_id_file = mkDefault (file "s3-access-key-id");
        secret_access_key_file = mkDefault (file "s3-secret-access-key");
        session_token_file = mkDefault (file "s3-session-token");
        credentials_file = mkDefault (file "s3-credentials");
        profile = mkDefault cfg.s3.profile;
      };
    };

  # Secrets that are set: name → file.
  secrets = cfg: lib.filterAttrs (_: file: file != null) (secretsOf cfg);

  # The configuration file, in the Nix store.
  configFile = cfg: toml.generate "tcfs.toml" (compact cfg.settings);

  assertions = cfg:
    let
      s = cfg.settings;
      set = v: v != null;
      secretKeys = builtins.filter (k: builtins.elem k (given cfg))
        [ "nats.token" "nats.password" "s3.access_key_id" "s3.secret_access_key" "s3.session_token" ];
      # Wherever it was set.
      inStore = lib.concatMap
        (table: map (k: "${table}.${k}") (builtins.filter
          (k: isSecretFile k && set s.${table}.${k} && lib.hasPrefix builtins.storeDir s.${table}.${k})
          (builtins.attrNames s.${table})))
        [ "nats" "s3" ];
      busKeys = [ s.nats.user s.nats.password_file s.nats.token_file s.nats.nkey_file s.nats.creds_file s.nats.ca_file s.nats.hub ];
    in
    [
      {
        assertion = secretKeys == [ ];
        message = "${name}.settings: ${toString secretKeys} would lie in the Nix store, which everybody can read. Put the secret into a file and name that (`…_file`).";
      }
      {
        assertion = inStore == [ ];
        message = "${name}: ${toString inStore} names a file in the Nix store, which everybody can read. Secrets belong into files that sops-nix or agenix make.";
      }
      {
        assertion = !(set s.nats_url && builtins.match "(.*,)?[a-z]+://[^/,]*@.*" s.nats_url != null);
        message = "${name}.natsUrl has a user or a password in it, and would lie in the Nix store. Use nats.user and nats.passwordFile.";
      }
      {
        assertion = set s.nats_url || builtins.all (v: v == null) busKeys;
        message = "${name}.nats is set but natsUrl is not: there would be no event bus.";
      }
      {
        assertion = set s.nats.user == set s.nats.password_file;
        message = "${name}: nats.user and nats.passwordFile go together.";
      }
      {
        assertion = set s.s3.access_key_id_file == set s.s3.secret_access_key_file;
        message = "${name}: s3.accessKeyIdFile and s3.secretAccessKeyFile go together.";
      }
      {
        assertion = !(set s.s3.endpoint && lib.hasPrefix "http://" s.s3.endpoint) || s.s3.allow_http == true;
        message = "${name}.s3.endpoint is without TLS: whoever is on the way can read everything. Set s3.allowHttp if that is meant.";
      }
    ];

  warnings = cfg:
    let
      unknown = builtins.filter (k: !(builtins.elem k known)) (given cfg);
    in
    lib.optional (unknown != [ ]) "${name}.settings: this module does not know ${toString unknown}; a tcfs that does not know a key refuses to start."
    ++ lib.optional (cfg.settings.sync_git_dirs == true && cfg.settings.git_sync_mode == "raw")
      "${name}: gitSyncMode is raw: .git is carried file by file, and what two machines do to a repository at once can break it.";

  # A word of a command line as systemd reads it.
  word = w: builtins.replaceStrings [ "%" "$" ] [ "%%" "$$" ] (builtins.toJSON (toString w));
}
