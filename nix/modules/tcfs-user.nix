# programs.tcfs: the drive of one user (Home Manager): a systemd user service on Linux, a launchd agent on macOS.
#
# In a user's manager most of systemd's hardening makes a mount namespace or keeps setuid programs from being root, and then
# there is no mount, or nobody sees it: what is left is here.
{ config, lib, pkgs, ... }:

let
  inherit (lib) mkIf mkMerge mkOption types;

  name = "programs.tcfs";
  cfg = config.programs.tcfs;
  common = import ./common.nix { inherit lib pkgs name; };
  configFile = common.configFile cfg;
  inherit (pkgs.stdenv.hostPlatform) isDarwin;
  home = config.home.homeDirectory;
  # Where the program itself looks, so that it needs no flag.
  configPlace = if isDarwin then "Library/Application Support/tcfs/config.toml" else ".config/tcfs/config.toml";
  log = "${home}/Library/Logs/tcfs.log";
in
{
  options.programs.tcfs = common.options // {
    mountpoint = mkOption {
      type = types.strMatching "[/~].+";
      default = "~/tcfs";
      description = "Where the drive is mounted; the directory is made.";
    };

    service = mkOption {
      type = types.bool;
      default = true;
      description = "Mount the drive with every login; otherwise `tcfs mount` does.";
    };
  };

  config = mkIf cfg.enable (mkMerge [
    {
      programs.tcfs.settings = common.settings cfg (_: file: file);

      assertions = common.assertions cfg;
      warnings = common.warnings cfg;

      home.packages = [ cfg.package ];
      home.file.${configPlace}.source = configFile;
    }

    (mkIf (cfg.service && !isDarwin) {
      systemd.user.services.tcfs = {
        Unit = {
          Description = "tcfs drive";
          Documentation = "man:tcfs(1)";
          X-Restart-Triggers = [ "${configFile}" ];
        };
        Service = {
          Type = "notify";
          ExecStart = "${cfg.package}/bin/tcfs mount --foreground";
          # git carries repositories; fusermount3 must be setuid: that of NixOS, or of another system.
          Environment = "PATH=${pkgs.git}/bin:/run/wrappers/bin:/usr/local/bin:/usr/bin:/bin";
          Restart = "on-failure";
          RestartSec = 5;
          # What the configuration has wrong, another try does not mend.
          RestartPreventExitStatus = 2;
          # Seals what is open and unmounts, which a busy disk may hold up.
          TimeoutStopSec = 90;
          UMask = "0077";
          LimitNOFILE = 524288;
        };
        Install.WantedBy = [ "default.target" ];
      };
    })

    (mkIf (cfg.service && isDarwin) {
      launchd.agents.tcfs = {
        enable = true;
        config = {
          ProgramArguments = [ "${cfg.package}/bin/tcfs" "mount" "--foreground" ];
          EnvironmentVariables.PATH = "${pkgs.git}/bin:/usr/bin:/bin:/usr/sbin:/sbin";
          RunAtLoad = true;
          # Without NetworkState: it works without the network, and goes on after sleep by itself.
          KeepAlive.SuccessfulExit = false;
          ThrottleInterval = 10;
          ExitTimeOut = 90;
          ProcessType = "Adaptive";
          Umask = 63;
          SoftResourceLimits.NumberOfFiles = 10240;
          StandardOutPath = log;
          StandardErrorPath = log;
        };
      };
    })
  ]);
}
