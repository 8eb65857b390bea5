# A Mac that nobody sits at: conflicts by the common rule, no repositories, a small disk.
{
  imports = [ ./lab.nix ];

  programs.tcfs = {
    deviceName = "petting-zoo-mini";
    cacheMaxBytes = "20GiB";
  };
  tinyland.tummycrypt.fleet = {
    conflictMode = "auto";
    syncGitDirs = false;
  };
}
