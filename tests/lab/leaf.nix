# Machines for leaf.py: all share one loopback, so the servers have ports of their own.
let
  secret = text: { inherit text; };
  device = name: bus: {
    imports = [ ../../nix/modules/tcfs-daemon.nix ];
    environment.etc."secrets/s3" = secret "[default]\naws_access_key_id = test\naws_secret_access_key = test-key\n";
    environment.etc."secrets/bus" = secret "test-password";
    services.tcfsd = {
      enable = true;
      deviceName = name;
      store = "s3://tcfs/default";
      s3 = { endpoint = "http://hub:8333"; allowHttp = true; credentialsFile = "/etc/secrets/s3"; };
      natsUrl = bus;
      nats = { user = "tcfs"; passwordFile = "/etc/secrets/bus"; hub = "hub"; };
      settings.poll_interval = "1d";
    };
  };
  fleet = import ../../nix/tests/fleet.nix { pkgs.testers.runNixOSTest = t: t; };
in
{
  hub = fleet.nodes.server;

  yoga = {
    imports = [ (device "yoga" "nats://127.0.0.1:4223") ../../nix/nats-leaf.nix ];
    environment.etc."secrets/leaf" = secret ''
      tcfs_password = "test-password"
      tcfs_hub_url = "nats://leaf:test-leaf@hub:7422"
    '';
    services.tcfs-nats = {
      enable = true;
      role = "leaf";
      listen = "0.0.0.0:4223";
      secretsFile = "/etc/secrets/leaf";
    };
  };
  mac = device "mac" "nats://yoga:4223";
  far = device "far" "nats://hub:4222";
}
