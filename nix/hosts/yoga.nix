# The Linux workstation: its own version stays in place until somebody decides, repositories travel. It runs the leaf node of
# the lab, by its NixOS configuration: yoga-leaf.nix.
{
  imports = [ ./lab.nix ];

  programs.tcfs.deviceName = "yoga";
  tinyland.tummycrypt.fleet = {
    conflictMode = "interactive";
    syncGitDirs = true;
    gitSyncMode = "bundle";
    natsUrl = "nats://127.0.0.1:4222";
  };
}
