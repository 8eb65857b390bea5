# What the machines of the lab have in common: one store, one event bus, credentials in a file that sops-nix writes.
{ lib, ... }:

{
  imports = [ ../home-manager/tummycrypt.nix ];

  tinyland.host.tummycrypt = { enable = true; fleet = true; };
  # The leaf node on yoga (yoga-leaf.nix): the lab goes on when the line to the cluster is down.
  tinyland.tummycrypt.fleet.natsUrl = lib.mkDefault "nats://yoga:4222";

  programs.tcfs = {
    store = "s3://tcfs/default";
    s3 = {
      endpoint = "https://s3.tcfs.example.org:8333";
      credentialsFile = "~/.config/tcfs/s3-credentials";
    };
    nats = {
      hub = "hub";
      user = "tcfs";
      passwordFile = "~/.config/tcfs/nats-password";
    };
  };
}
