# Installs voxtral @VERSION@ for you alone on Windows: gets the archive, checks its sum, unpacks it below %LOCALAPPDATA%\voxtral and adds
# that to your PATH. Untried.
#   $env:VOXTRAL_URL    another place of the archives
function Install-Voxtral {
    $ErrorActionPreference = 'Stop'
    $ProgressPreference = 'SilentlyContinue'
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
        if (Test-Path $place) { Move-Item $place (Join-Path $folder 'old') }
        Move-Item (Join-Path $folder $name) $place
    } finally {
        Remove-Item -Recurse -Force $folder
    }
    # As it is written, where it names other variables.
    $environment = [Microsoft.Win32.Registry]::CurrentUser.OpenSubKey('Environment', $true)
    $path = $environment.GetValue('Path', '', 'DoNotExpandEnvironmentNames')
    if (($path -split ';') -notcontains $place) {
        $environment.SetValue('Path', (@($path, $place) -ne '' -join ';'), 'ExpandString')
        [Environment]::SetEnvironmentVariable('VOXTRAL_INSTALLED', $null, 'User') # which tells other programs of the change
        Write-Output "added $place to your PATH: open a new terminal"
    }
    Write-Output "installed $place\voxtral.exe"
    Write-Output 'Next: voxtral doctor, voxtral download'
}

Install-Voxtral
