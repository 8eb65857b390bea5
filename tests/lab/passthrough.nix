# Machines for passthrough.py: one whose daemon mounts itself, for a person, and one whose daemon has a helper.
let
  service = {
    imports = [ ../../nix/modules/tcfs-daemon.nix ];
    services.tcfsd = { enable = true; syncGitDirs = true; };
  };
in
{
  direct = {
    imports = [ service ];
    users.users.ann = { isNormalUser = true; };
    services.tcfsd = { user = "ann"; group = "users"; passthrough = true; };
  };
  helped = service;
}
