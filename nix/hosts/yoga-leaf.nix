# For the NixOS configuration of yoga: the leaf node that the machines of the lab talk to. Its stream lies on yoga's disk; while the
# line to the hub in the cluster is down, the lab goes on with it.
{
  imports = [ ../nats-leaf.nix ];

  services.tcfs-nats = {
    enable = true;
    role = "leaf";
    domain = "yoga";
    secretsFile = "/run/secrets/tcfs-nats";
    openFirewall = true;
  };
}
