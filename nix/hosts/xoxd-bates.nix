# A Mac at a desk: conflicts by the common rule, no repositories.
{
  imports = [ ./lab.nix ];

  programs.tcfs.deviceName = "xoxd-bates";
  tinyland.tummycrypt.fleet = {
    conflictMode = "auto";
    syncGitDirs = false;
  };
}
