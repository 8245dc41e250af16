# Homebrew. Untried.
class Voxtral < Formula
  desc "Streaming speech to text with Voxtral Realtime, on your own machine"
  homepage "@REPOSITORY@"
  url "@REPOSITORY@/releases/download/v@VERSION@/voxtral-@VERSION@-source.tar.gz"
  sha256 "@SUM_SOURCE@"
  license all_of: ["Apache-2.0", "CC-BY-SA-4.0"]

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args(path: "crates/cli")
    generate_completions_from_executable(bin/"voxtral", "completions")
    (man1/"voxtral.1").write Utils.safe_popen_read(bin/"voxtral", "man")
    pkgshare.install "samples/digits.wav"
  end

  test do
    words = shell_output("#{bin}/voxtral -d digits --backend cpu #{pkgshare}/digits.wav 2>/dev/null")
    assert_equal "four seven one one nine zero two six three five eight", words.strip
  end
end
