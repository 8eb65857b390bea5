# services.tcfs-nats: a NATS server for the drive's event bus (NixOS), as the hub of a fleet or as a leaf node of one.
#
# Each server has a JetStream domain and a stream `STATE_UPDATES` of its own, on its own disk. The daemons make both streams and
# name each as a source of the other (`nats.hub` in their configuration). While the line to the hub is down, the machines of
# the leaf go on with the stream of the leaf; when it is back, each side takes what it missed from the other. `STATE.>` itself
# is denied across the line, so that nothing is stored twice.
#
# Passwords lie in one file, in the server's own syntax, which is included. It has two lines and no other, on the hub
#   tcfs_password = "…"                                   that of the machines
#   tcfs_leaf_password = "…"                              that of the leaf nodes
# and on a leaf
#   tcfs_password = "…"                                   that of its machines
#   tcfs_hub_url = "tls://leaf:…@hub.example.org:7422"    where the hub is, with the password of the leaf nodes
{ config, lib, pkgs, ... }:

let
  inherit (lib) mkEnableOption mkIf mkOption types;

  cfg = config.services.tcfs-nats;
  isHub = cfg.role == "hub";
  quoted = builtins.toJSON;
  port = address: builtins.fromJSON (builtins.head (builtins.match ".*:([0-9]+)" address));
  tls = lib.optionalString (cfg.tls.certFile != null) "tls { cert_file: ${quoted "${credentials}/tls-cert"}, key_file: ${quoted "${credentials}/tls-key"} }";
  credentials = "/run/credentials/tcfs-nats.service";
in
{
  options.services.tcfs-nats = {
    enable = mkEnableOption "a NATS server for the event bus of the tcfs drive";

    package = mkOption {
      type = types.package;
      default = pkgs.nats-server;
      defaultText = lib.literalExpression "pkgs.nats-server";
      description = "The server: 2.10 or newer.";
    };

    role = mkOption {
      type = types.enum [ "hub" "leaf" ];
      default = "leaf";
      description = "The one server in the middle, or one at a site that passes on.";
    };

    domain = mkOption {
      type = types.strMatching "[A-Za-z0-9_-]+";
      default = if isHub then "hub" else config.networking.hostName;
      defaultText = lib.literalExpression "if role is hub then \"hub\" else config.networking.hostName";
      description = "JetStream domain; each server has another. The machines of a leaf name that of the hub as `nats.hub`.";
    };

    listen = mkOption {
      type = types.strMatching ".+:[0-9]+";
      default = "0.0.0.0:4222";
      description = "Where the machines connect.";
    };

    leafListen = mkOption {
      type = types.strMatching ".+:[0-9]+";
      default = "0.0.0.0:7422";
      description = "Where leaf nodes connect to a hub.";
    };

    maxStore = mkOption {
      type = types.strMatching "[0-9]+[KMGT]B?";
      default = "4GB";
      description = "Most that it takes there: a week of what was said, about 1 KB for each save.";
    };

    secretsFile = mkOption {
      type = types.strMatching "/.+";
      example = "/run/secrets/tcfs-nats";
      description = "File with the passwords (see the head of this module), outside of the Nix store.";
    };

    tls = {
      certFile = mkOption {
        type = types.nullOr (types.strMatching "/.+");
        default = null;
        description = "Certificate for clients and leaf nodes, PEM. Without one, what goes over the line can be read there: names and hashes.";
      };
      keyFile = mkOption {
        type = types.nullOr (types.strMatching "/.+");
        default = null;
        description = "Its key.";
      };
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Let the machines (and, on a hub, leaf nodes) in from elsewhere.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = !(lib.hasPrefix builtins.storeDir cfg.secretsFile);
        message = "services.tcfs-nats.secretsFile lies in the Nix store, which everybody can read.";
      }
      {
        assertion = (cfg.tls.certFile == null) == (cfg.tls.keyFile == null);
        message = "services.tcfs-nats: tls.certFile and tls.keyFile go together.";
      }
      {
        assertion = isHub || cfg.domain != "hub";
        message = "services.tcfs-nats.domain: a leaf node has a JetStream domain of its own, other than that of the hub.";
      }
    ];

    environment.etc."tcfs/nats.conf".text = ''
      server_name: ${quoted cfg.domain}
      listen: ${quoted cfg.listen}
      ${tls}
      # Relative to this file, as the server wants it.
      include "../..${credentials}/secrets"

      jetstream { store_dir: "/var/lib/tcfs-nats", domain: ${quoted cfg.domain}, max_file_store: ${cfg.maxStore} }
      accounts { TCFS: { jetstream: enabled, users: [ { user: tcfs, password: $tcfs_password } ] } }
    '' + (if isHub then ''
      leafnodes {
        listen: ${quoted cfg.leafListen}
        ${tls}
        authorization { users: [ { user: leaf, password: $tcfs_leaf_password, account: TCFS } ] }
      }
    '' else ''
      leafnodes {
        remotes: [ { url: $tcfs_hub_url, account: TCFS, deny_imports: ["STATE.>"], deny_exports: ["STATE.>"] } ]
      }
    '');

    networking.firewall.allowedTCPPorts = mkIf cfg.openFirewall ([ (port cfg.listen) ] ++ lib.optional isHub (port cfg.leafListen));

    systemd.services.tcfs-nats = {
      description = "NATS server of the tcfs drive";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      restartTriggers = [ config.environment.etc."tcfs/nats.conf".text ];
      serviceConfig = {
        ExecStart = "${cfg.package}/bin/nats-server -c /etc/tcfs/nats.conf";
        ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
        Restart = "always";
        RestartSec = 2;
        DynamicUser = true;
        StateDirectory = "tcfs-nats";
        LoadCredential = [ "secrets:${cfg.secretsFile}" ]
          ++ lib.optional (cfg.tls.certFile != null) "tls-cert:${cfg.tls.certFile}"
          ++ lib.optional (cfg.tls.keyFile != null) "tls-key:${cfg.tls.keyFile}";
        LimitNOFILE = 65536;
        UMask = "0077";
        CapabilityBoundingSet = "";
        NoNewPrivileges = true;
        PrivateDevices = true;
        PrivateTmp = true;
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHome = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectSystem = "strict";
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        RestrictAddressFamilies = [ "AF_UNIX" "AF_INET" "AF_INET6" ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        SystemCallArchitectures = "native";
        SystemCallFilter = [ "@system-service" "~@privileged" ];
      };
    };
  };
}
