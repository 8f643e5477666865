{{/* Ports that a text names as host:port, and those of the schemes that it names without, as YAML: {ports: [...]}. */}}
{{- define "mixer.portsIn" -}}
{{- $ports := list -}}
{{- range regexFindAll "[A-Za-z0-9_.\\]-]:[0-9]{2,5}\\b" . -1 -}}
{{- $ports = append $ports (regexFind "[0-9]+$" . | int) -}}
{{- end -}}
{{- range $schemes, $port := dict "https|s3|gs|gcs|abfss?|az|adl" 443 "http" 80 "postgres(ql)?" 5432 "rediss?" 6379 -}}
{{- if regexMatch (printf "\\b(%s)://[^\\s:/,\"]+([/,\"\\s]|$)" $schemes) $ }}{{ $ports = append $ports $port }}{{ end -}}
{{- end -}}
{{- dict "ports" ($ports | uniq) | toYaml -}}
{{- end }}

{{/* One egress rule to these peers, or to anywhere, on these TCP ports; nothing without ports. Arguments: peers, ports. */}}
{{- define "mixer.egressRule" -}}
{{- if .ports }}
- ports:
    {{- range .ports }}
    - port: {{ . }}
      protocol: TCP
    {{- end }}
  {{- with .peers }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* What every pod must reach: name servers and the collector. */}}
{{- define "mixer.egressBase" -}}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
  {{- with .Values.networkPolicy.egress.dns }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- $addresses := list -}}
{{- range $name, $value := .Values.otelEnv -}}
{{- if hasSuffix "_ENDPOINT" $name }}{{ $addresses = append $addresses (toString $value) }}{{ end -}}
{{- end -}}
{{- $collector := include "mixer.portsIn" (join " " $addresses) | fromYaml -}}
{{- include "mixer.egressRule" (dict "peers" .Values.networkPolicy.egress.collector "ports" $collector.ports) }}
{{- with .Values.networkPolicy.egress.extra }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Ports of everything that the settings name outside of the release, as YAML: {ports: [...]}. */}}
{{- define "mixer.remotePorts" -}}
{{- $config := include "mixer.config" . | fromYaml -}}
{{- $text := pick $config "backends" "stores" "models" "feature_log" "auth" | toYaml -}}
{{- range $name, $settings := .Values.backends -}}
{{- $backend := include "mixer.backend" (dict "root" $ "settings" $settings) | fromYaml -}}
{{- if $backend.enabled -}}
{{- $text = replace (printf "%s-%s:%v" (include "mixer.fullname" $) $name $backend.port) "" $text -}}
{{- end -}}
{{- end -}}
{{- include "mixer.portsIn" $text -}}
{{- end }}
