# tinyland.tummycrypt: how the hosts of the lab ask for the drive (Home Manager). Flags of a host say whether it has it and
# whether it is one of the fleet; the rest goes to `programs.tcfs`, where everything can still be set otherwise.
{ config, lib, ... }:

let
  inherit (lib) mkDefault mkEnableOption mkIf mkOption types;

  host = config.tinyland.host.tummycrypt;
  inherit (config.tinyland.tummycrypt) fleet;
in
{
  imports = [ ../modules/tcfs-user.nix ];

  options.tinyland = {
    host.tummycrypt = {
      enable = mkEnableOption "the tcfs drive on this host";
      fleet = mkEnableOption "this host as one of the fleet";
    };

    tummycrypt.fleet = {
      enable = mkEnableOption "the drive of the fleet";

      conflictMode = mkOption {
        type = types.enum [ "auto" "interactive" "defer" ];
        default = "auto";
        description = "What a path in conflict shows on this host.";
      };

      syncGitDirs = mkOption {
        type = types.bool;
        default = false;
        description = "Take git repositories along.";
      };

      gitSyncMode = mkOption {
        type = types.enum [ "bundle" "raw" ];
        default = "bundle";
        description = "How repositories travel.";
      };

      natsUrl = mkOption {
        type = types.nonEmptyStr;
        default = "nats://nats.tcfs.svc.cluster.local:4222";
        description = "The event bus: that of the cluster, or better a leaf node of it nearby.";
      };

      excludePatterns = mkOption {
        type = types.listOf types.str;
        default = [ "*.swp" "*.swo" ".direnv" ];
        description = "Names that never leave this host.";
      };
    };
  };

  config = {
    tinyland.tummycrypt.fleet.enable = mkIf (host.enable && host.fleet) (mkDefault true);

    programs.tcfs = lib.mkMerge [
      { enable = mkIf (host.enable || fleet.enable) (mkDefault true); }
      (mkIf fleet.enable {
        conflictMode = mkDefault fleet.conflictMode;
        syncGitDirs = mkDefault fleet.syncGitDirs;
        gitSyncMode = mkDefault fleet.gitSyncMode;
        natsUrl = mkDefault fleet.natsUrl;
        excludePatterns = mkDefault fleet.excludePatterns;
      })
    ];
  };
}
