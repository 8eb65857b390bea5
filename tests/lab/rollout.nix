# Machines for rollout.py: a server with S3 and the hub of the bus, a leaf node on yoga, and three machines with nothing else.
let
  fleet = import ../../nix/tests/fleet.nix { pkgs.testers.runNixOSTest = t: t; };
  leaf = import ./leaf.nix;
in
{
  server = fleet.nodes.server;
  xoxd-bates = { };
  petting-zoo-mini = { };
  yoga = {
    imports = [ ../../nix/nats-leaf.nix ];
    environment.etc."secrets/leaf".text = ''
      tcfs_password = "test-password"
      tcfs_hub_url = "nats://leaf:test-leaf@server:7422"
    '';
    # The machines share a loopback: not the port of the hub.
    services.tcfs-nats = leaf.yoga.services.tcfs-nats;
  };
}
