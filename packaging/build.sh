#!/usr/bin/env bash
# Makes all packages from programs that are built already, in target/dist:
#   packaging/build.sh FOLDER
# FOLDER holds linux-x86_64/voxtral, which must run here, and perhaps linux-aarch64/voxtral and windows-x86_64/voxtral.exe.
set -euo pipefail
programs=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source packaging/common.sh

rm -rf "$dist" "$work/stage"
mkdir -p "$dist" "$work/stage"
voxtral=$programs/linux-x86_64/voxtral
[[ -x $voxtral ]] || fail "there is no program $voxtral"
need packaging zip zip

step 'manual, completions, licences'
common=$work/stage/common
mkdir -p "$common"/{man/man1,completions}
"$voxtral" man >"$common/man/man1/voxtral.1"
commands=$("$voxtral" --help | awk '/^Commands:/ { on = 1; next } /^[^ ]/ { on = 0 } on && $1 != "help" && /^  [a-z]/ { print $1 }')
[[ $(wc -w <<<"$commands") -gt 3 ]] || fail "voxtral --help names no commands"
for command in $commands; do "$voxtral" man "$command" >"$common/man/man1/voxtral-$command.1"; done
"$voxtral" completions bash >"$common/completions/voxtral.bash"
"$voxtral" completions zsh >"$common/completions/_voxtral"
"$voxtral" completions fish >"$common/completions/voxtral.fish"
"$voxtral" completions powershell >"$common/completions/voxtral.ps1"
packaging/third_party.py licences >"$common/THIRD-PARTY.txt"
packaging/third_party.py sbom >"$dist/voxtral-$version.cdx.json"
cp README.md CHANGELOG.md LICENSE NOTICE "$common"
git ls-files -z docs schemas ':!docs/gpu-runs' | xargs -0 cp --parents -t "$common"

step 'archives'
for folder in "$programs"/*/; do
    platform=$(basename "$folder")
    name=voxtral-$version-$platform
    cp -r "$common" "$work/stage/$name"
    cp "$folder"/voxtral* "$work/stage/$name"
    find "$work/stage/$name" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    chmod -R u=rwX,go=rX "$work/stage/$name"
    if [[ $platform == windows-* ]]; then
        (cd "$work/stage" && find "$name" -type f | LC_ALL=C sort | TZ=UTC zip -qX "$dist/$name.zip" -@)
    else
        tar -C "$work/stage" --sort=name --owner=0 --group=0 --numeric-owner -c "$name" | gzip -9n >"$dist/$name.tar.gz"
    fi
done
git archive --prefix="voxtral-$version/" HEAD | gzip -9n >"$dist/voxtral-$version-source.tar.gz"

step 'Debian packages'
for folder in "$programs"/linux-*/; do packaging/deb.sh "$folder/voxtral" "$common"; done

step 'Helm chart and manifests'
helm=$(helm_program)
grep -qx "appVersion: $version" deploy/helm/voxtral/Chart.yaml || fail "deploy/helm/voxtral/Chart.yaml is not of version $version"
"$helm" package -d "$dist" deploy/helm/voxtral
mv "$dist/voxtral-$version.tgz" "$dist/voxtral-$version-chart.tgz"
"$helm" template voxtral deploy/helm/voxtral >"$dist/voxtral-$version-kubernetes.yaml"

step 'installers and manifests of package managers'
# What names an archive that was not built is left out.
sum() { if [[ -e $dist/$1 ]]; then sha256sum "$dist/$1" | cut -d' ' -f1; fi; }
while read -r template; do
    filled=$(sed -e "s|@VERSION@|$version|g" -e "s|@REPOSITORY@|$repository|g" \
        -e "s|@SUM_LINUX_X86_64@|$(sum "voxtral-$version-linux-x86_64.tar.gz")|" \
        -e "s|@SUM_LINUX_AARCH64@|$(sum "voxtral-$version-linux-aarch64.tar.gz")|" \
        -e "s|@SUM_WINDOWS_X86_64@|$(sum "voxtral-$version-windows-x86_64.zip")|" \
        -e "s|@SUM_SOURCE@|$(sum "voxtral-$version-source.tar.gz")|" "packaging/$template")
    if grep -qE '(sha256 ""|"hash": ""|InstallerSha256: *$)' <<<"$filled"; then
        printf 'left out, because it names an archive that was not built: %s\n' "$template"
        continue
    fi
    printf '%s\n' "$filled" >"$dist/$(basename "$template")"
done < <(cd packaging && ls install.sh install.ps1 voxtral.rb scoop/* winget/*)

write_sums
ls -l "$dist"
