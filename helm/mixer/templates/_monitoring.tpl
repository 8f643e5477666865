{{/* The label `job` of this release's series: the service that the ServiceMonitor scrapes. */}}
{{- define "mixer.job" -}}
{{- default (printf "%s-admin" (include "mixer.fullname" .)) .Values.prometheusRule.job -}}
{{- end }}

{{/* Groups of rules: those given, else the chart's, of this release alone. */}}
{{- define "mixer.rules" -}}
{{- if .Values.prometheusRule.rules -}}
{{- .Values.prometheusRule.rules -}}
{{- else -}}
{{- $text := .Files.Get "files/rules/mixer.rules.yaml" -}}
{{- $text = $text | replace "RELEASE_NAMESPACE" .Release.Namespace | replace "RELEASE_JOB" (include "mixer.job" .) -}}
{{- $text | replace "docs/runbooks.md#" (printf "%s#" .Values.prometheusRule.runbooks) -}}
{{- end -}}
{{- end }}
