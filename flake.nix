# nix run, nix develop. Untried.
{
  description = "Streaming speech to text with Voxtral Realtime, on your own machine";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      each =
        make:
        nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" "aarch64-darwin" ] (
          system: make nixpkgs.legacyPackages.${system}
        );
      manifest = (builtins.fromTOML (builtins.readFile ./Cargo.toml)).workspace.package;
    in
    {
      packages = each (pkgs: {
        default = pkgs.rustPlatform.buildRustPackage {
          pname = "voxtral";
          inherit (manifest) version;
          src = self;
          cargoLock.lockFile = ./Cargo.lock;
          cargoBuildFlags = [ "-p" "voxtral-cli" ];
          doCheck = false; # .ci/run does that, with what the tests need
          nativeBuildInputs = [ pkgs.installShellFiles ];
          postInstall = ''
            $out/bin/voxtral man > voxtral.1
            installManPage voxtral.1
            installShellCompletion --cmd voxtral \
              --bash <($out/bin/voxtral completions bash) \
              --zsh <($out/bin/voxtral completions zsh) \
              --fish <($out/bin/voxtral completions fish)
          '';
          meta = {
            homepage = manifest.repository;
            license = with pkgs.lib.licenses; [ asl20 cc-by-sa-40 ];
            mainProgram = "voxtral";
          };
        };
      });
      devShells = each (pkgs: {
        default = pkgs.mkShell { packages = with pkgs; [ cargo rustc rustfmt clippy python3 ffmpeg ]; };
      });
    };
}
