# Installs voxtral @VERSION@ for you alone on Windows: gets the archive, checks its sum, unpacks it below %LOCALAPPDATA%\voxtral and adds
# that to your PATH. Untried.
#   $env:VOXTRAL_URL    another place of the archives
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'

function Install-Voxtral {
    if ($env:PROCESSOR_ARCHITECTURE -ne 'AMD64') { throw "there is no archive for $env:PROCESSOR_ARCHITECTURE" }
    $url = if ($env:VOXTRAL_URL) { $env:VOXTRAL_URL } else { '@REPOSITORY@/releases/download/v@VERSION@' }
    $name = 'voxtral-@VERSION@-windows-x86_64'
    $folder = Join-Path ([IO.Path]::GetTempPath()) ([Guid]::NewGuid())
    New-Item -ItemType Directory $folder | Out-Null
    try {
        $archive = Join-Path $folder "$name.zip"
        Invoke-WebRequest -UseBasicParsing "$url/$name.zip" -OutFile $archive
        Invoke-WebRequest -UseBasicParsing "$url/SHA256SUMS" -OutFile "$folder\SHA256SUMS"
        $line = Get-Content "$folder\SHA256SUMS" | Where-Object { $_.EndsWith(" $name.zip") }
        if (-not $line) { throw "SHA256SUMS does not name $name.zip" }
        if ((Get-FileHash -Algorithm SHA256 $archive).Hash -ne $line.Split(' ')[0]) {
            throw "$name.zip is not what SHA256SUMS says: nothing was installed"
        }
        Expand-Archive $archive $folder
        $place = Join-Path $env:LOCALAPPDATA 'voxtral'
        if (Test-Path $place) { Remove-Item -Recurse -Force $place }
        Move-Item (Join-Path $folder $name) $place
    } finally {
        Remove-Item -Recurse -Force $folder
    }
    $path = [Environment]::GetEnvironmentVariable('Path', 'User')
    if (($path -split ';') -notcontains $place) {
        [Environment]::SetEnvironmentVariable('Path', "$path;$place", 'User')
        Write-Output "added $place to your PATH: open a new terminal"
    }
    Write-Output "installed $place\voxtral.exe"
    Write-Output 'Next: voxtral doctor, voxtral download'
}

Install-Voxtral
