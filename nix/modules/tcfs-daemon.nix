# services.tcfsd: the drive as a service of the machine (NixOS), under a user of its own or somebody's.
#
# A service with mounts of its own would have the drive for itself: nothing here gives it any (no ProtectSystem, PrivateTmp and
# the like). Without `passthrough` it mounts by the setuid program fusermount3, which each of systemd's system call filters
# keeps from being root; with `passthrough` it mounts itself, and is confined to that.
{ config, lib, pkgs, ... }:

let
  inherit (lib) mkIf mkOption types;

  name = "services.tcfsd";
  cfg = config.services.tcfsd;
  common = import ./common.nix { inherit lib pkgs name; };
  configFile = common.configFile cfg;
  isRoot = cfg.user == "root";
  direct = isRoot || cfg.passthrough;
  flag = on: text: lib.optionals on [ text ];
in
{
  options.services.tcfsd = common.options // {
    mountpoint = mkOption {
      type = types.strMatching "/.+";
      default = "/tcfs";
      description = "Where the drive is mounted; the directory is made.";
    };

    user = mkOption {
      type = types.nonEmptyStr;
      default = "tcfs";
      description = "Whose files those in the drive are. `tcfs`, a user of the system, is made if it is needed.";
    };

    group = mkOption {
      type = types.nonEmptyStr;
      default = "tcfs";
      description = "Their group.";
    };

    allowOther = mkOption {
      type = types.bool;
      default = true;
      description = "Let other users look, as far as modes allow; also puts `user_allow_other` into /etc/fuse.conf where it is needed.";
    };

    passthrough = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Let the kernel read and write large files on the disk directly (Linux 6.9 or newer), which takes CAP_SYS_ADMIN. The
        daemon then mounts without a setuid program and is confined by a filter of system calls; programs that it starts (git)
        have no capability.
      '';
    };
  };

  config = mkIf cfg.enable {
    services.tcfsd.settings = lib.mkMerge [
      # systemd reads the secrets as root and gives each to the daemon.
      (common.settings cfg (secret: _: "/run/credentials/tcfsd.service/${secret}"))
      {
        state_dir = lib.mkDefault "/var/lib/tcfs";
        cache.dir = lib.mkDefault "/var/cache/tcfs";
      }
    ];

    assertions = common.assertions cfg ++ [
      {
        assertion = !(lib.hasPrefix "s3://" (toString cfg.settings.store))
          || cfg.settings.s3.access_key_id_file != null || cfg.settings.s3.credentials_file != null;
        message = "${name}.store is in S3 and there are no credentials: set s3.accessKeyIdFile and s3.secretAccessKeyFile, or s3.credentialsFile.";
      }
    ];
    warnings = common.warnings cfg;

    environment.systemPackages = [ cfg.package ];
    # `sudo -u USER tcfs --config /etc/tcfs/config.toml status`
    environment.etc."tcfs/config.toml".source = configFile;

    programs.fuse.userAllowOther = mkIf (cfg.allowOther && !direct) true;

    users.users = lib.optionalAttrs (cfg.user == "tcfs") {
      tcfs = { isSystemUser = true; group = cfg.group; description = "tcfs drive"; home = "/var/lib/tcfs"; };
    };
    users.groups = lib.optionalAttrs (cfg.group == "tcfs") { tcfs = { }; };

    systemd.services.tcfsd = {
      description = "tcfs drive";
      documentation = [ "man:tcfs(1)" ];
      wantedBy = [ "multi-user.target" ];
      # It works without the network, and finds it when it comes.
      after = [ "network.target" ];
      # The setuid fusermount3; git carries repositories.
      path = [ "/run/wrappers" pkgs.git ];
      restartTriggers = [ configFile ];
      serviceConfig = {
        Type = "notify";
        User = cfg.user;
        Group = cfg.group;
        ExecStartPre = [ "-+${pkgs.coreutils}/bin/install -d -o ${common.word cfg.user} -g ${common.word cfg.group} ${common.word cfg.settings.mountpoint}" ];
        ExecStart = lib.concatStringsSep " " (
          [ "${cfg.package}/bin/tcfs --config /etc/tcfs/config.toml mount --foreground" ]
            ++ flag cfg.allowOther "--allow-other"
            ++ flag (!direct) "--no-passthrough"
        );
        Restart = "on-failure";
        RestartSec = 5;
        # What the configuration has wrong, another try does not mend.
        RestartPreventExitStatus = 2;
        # Seals what is open and unmounts, which a busy disk may hold up.
        TimeoutStopSec = 90;
        StateDirectory = "tcfs";
        StateDirectoryMode = "0700";
        CacheDirectory = "tcfs";
        CacheDirectoryMode = "0700";
        UMask = "0077";
        LimitNOFILE = 524288;
        LoadCredential = lib.mapAttrsToList (secret: file: "${secret}:${file}") (common.secrets cfg);

        DevicePolicy = "closed";
        DeviceAllow = [ "/dev/fuse rw" ];
        KeyringMode = "private";
        # Of fusermount3: to mount, and to act as the user who asked.
        CapabilityBoundingSet = if direct then [ "CAP_SYS_ADMIN" ] else [ "CAP_SYS_ADMIN" "CAP_SETUID" "CAP_SETGID" "CAP_DAC_READ_SEARCH" ];
      } // lib.optionalAttrs (cfg.passthrough && !isRoot) {
        AmbientCapabilities = [ "CAP_SYS_ADMIN" ];
      } // lib.optionalAttrs direct {
        NoNewPrivileges = true;
        SystemCallFilter = [ "@system-service" "@mount" ];
        SystemCallErrorNumber = "EPERM";
        SystemCallArchitectures = "native";
        RestrictAddressFamilies = [ "AF_UNIX" "AF_INET" "AF_INET6" "AF_NETLINK" ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
      };
    };
  };
}
