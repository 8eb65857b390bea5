# A NixOS VM test: two machines with the drive, one server with the event bus and S3.
# The script (fleet.py) is run for real by the project's own tests too, where there is no KVM: on machines made of namespaces
# with a real systemd, from the units and files that this evaluates to (tests/lab).
{ pkgs }:

let
  # The keys of a test are no secrets.
  secret = text: { inherit text; };

  device = name: {
    imports = [ ../modules/tcfs-daemon.nix ];
    users.users.alice = { isNormalUser = true; };
    environment.etc."secrets/s3-id" = secret "test";
    environment.etc."secrets/s3-key" = secret "test-key";
    environment.etc."secrets/nats" = secret "test-password";
    services.tcfsd = {
      enable = true;
      user = "alice";
      group = "users";
      deviceName = name;
      store = "s3://tcfs/default";
      s3 = {
        endpoint = "http://server:8333";
        allowHttp = true;
        accessKeyIdFile = "/etc/secrets/s3-id";
        secretAccessKeyFile = "/etc/secrets/s3-key";
      };
      natsUrl = "nats://server:4222";
      nats = {
        user = "tcfs";
        passwordFile = "/etc/secrets/nats";
      };
    };
  };
in
pkgs.testers.runNixOSTest {
  name = "tcfs-fleet";

  nodes = {
    server = { pkgs, ... }: {
      imports = [ ../nats-leaf.nix ];
      environment.etc."secrets/nats" = secret ''
        tcfs_password = "test-password"
        tcfs_leaf_password = "test-leaf"
      '';
      environment.etc."weed/s3.json" = secret (builtins.toJSON {
        identities = [{
          name = "tcfs";
          credentials = [{ accessKey = "test"; secretKey = "test-key"; }];
          actions = [ "Admin" "Read" "List" "Tagging" "Write" ];
        }];
      });
      services.tcfs-nats = {
        enable = true;
        role = "hub";
        secretsFile = "/etc/secrets/nats";
        openFirewall = true;
      };
      networking.firewall.allowedTCPPorts = [ 8333 ];
      systemd.services.weed = {
        description = "SeaweedFS";
        wantedBy = [ "multi-user.target" ];
        after = [ "network.target" ];
        serviceConfig = {
          ExecStart = "${pkgs.seaweedfs}/bin/weed -logtostderr=true server -dir=/var/lib/weed -ip=127.0.0.1 -ip.bind=0.0.0.0 -master.telemetry=false -master.electionTimeout=1s -master.heartbeatInterval=100ms -master.volumeSizeLimitMB=64 -volume.max=0 -volume.preStopSeconds=1 -filer -s3 -s3.port=8333 -s3.config=/etc/weed/s3.json -s3.port.iceberg=0 -s3.port.lance=0";
          StateDirectory = "weed";
          DynamicUser = true;
        };
      };
    };

    ann = device "ann";
    bob = device "bob";
  };

  testScript = builtins.readFile ./fleet.py;
}
