# NixOS and Home Manager, as far as the modules set their options: each with a type, so that what is not there or is something
# else fails here as it would fail there.
{ lib }:

let
  inherit (lib) mkOption types;
  option = type: default: mkOption { inherit type default; };
  listOf = type: option (types.listOf type) [ ];
  attrsOf = type: option (types.attrsOf type) { };
  setting = types.oneOf [ types.bool types.int types.str ];
  # A setting of a unit may stand there several times.
  section = attrsOf (types.either setting (types.listOf setting));

  checks = {
    assertions = listOf (types.submodule {
      options = {
        assertion = mkOption { type = types.bool; };
        message = mkOption { type = types.str; };
      };
    });
    warnings = listOf types.str;
  };
  file = types.submodule {
    options = {
      source = option types.anything null;
      text = option (types.nullOr types.lines) null;
    };
  };
in
{
  nixos.options = checks // {
    environment.systemPackages = listOf types.package;
    environment.etc = attrsOf file;
    networking.hostName = option types.str "nixos";
    networking.firewall.allowedTCPPorts = listOf types.port;
    programs.fuse.userAllowOther = option types.bool false;
    users.users = attrsOf types.attrs;
    users.groups = attrsOf types.attrs;
    systemd.services = attrsOf (types.submodule {
      options = {
        description = option types.str "";
        documentation = listOf types.str;
        wantedBy = listOf types.str;
        after = listOf types.str;
        path = listOf types.anything;
        environment = attrsOf types.str;
        restartTriggers = listOf types.anything;
        preStart = option types.lines "";
        serviceConfig = section;
      };
    });
    virtualisation = option types.attrs { };
  };

  homeManager.options = checks // {
    home.homeDirectory = option types.str "/home/ann";
    home.packages = listOf types.package;
    home.file = attrsOf file;
    systemd.user.services = attrsOf (types.submodule {
      options = {
        Unit = section;
        Service = section;
        Install = section;
      };
    });
    launchd.agents = attrsOf (types.submodule {
      options = {
        enable = option types.bool false;
        config = option types.attrs { };
      };
    });
  };
}
