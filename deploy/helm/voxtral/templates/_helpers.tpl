{{- define "voxtral.selector" -}}
app.kubernetes.io/name: voxtral
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "voxtral.labels" -}}
{{ include "voxtral.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "voxtral.name" -}}
{{ if eq .Release.Name "voxtral" }}voxtral{{ else }}{{ printf "%s-voxtral" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "voxtral.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Who the containers run as, and what they may. */}}
{{- define "voxtral.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "voxtral.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
