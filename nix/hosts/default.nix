# The three machines of the lab: which system each is, and what its Home Manager configuration imports.
{
  xoxd-bates = { system = "aarch64-darwin"; module = ./xoxd-bates.nix; };
  petting-zoo-mini = { system = "aarch64-darwin"; module = ./petting-zoo-mini.nix; };
  yoga = { system = "x86_64-linux"; module = ./yoga.nix; };
}
