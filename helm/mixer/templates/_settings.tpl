{{/* The settings file: what `config` says, and over it what models, rollout, tls and auth do. */}}
{{- define "mixer.config" -}}
{{- $config := default (.Files.Get "files/mixer.yaml" | fromYaml) .Values.config | toYaml -}}
{{- $config = tpl $config . | fromYaml -}}
{{- with $config.Error }}{{ fail (printf "config is no YAML once its templates are filled in: %s" .) }}{{ end -}}
{{- range $name, $model := .Values.models -}}
{{- $_ := mergeOverwrite $config (dict "models" (dict $name (include "mixer.filled" $model | fromYaml))) -}}
{{- end -}}
{{- range $mix, $rollout := .Values.rollout -}}
{{- $arguments := dict "root" $ "config" $config "mix" $mix "rollout" $rollout -}}
{{- $_ := mergeOverwrite $config (dict "mixes" (dict $mix (include "mixer.rollout" $arguments | fromYaml))) -}}
{{- end -}}
{{- if .Values.tls.enabled -}}
{{- $_ := mergeOverwrite $config (dict "server" (include "mixer.tls" . | fromYaml)) -}}
{{- end -}}
{{- if .Values.auth.existingSecret -}}
{{- $_ := mergeOverwrite $config (dict "auth" (dict "keys" (printf "/etc/mixer/auth/%s" .Values.auth.keysKey))) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}

{{/* A mapping without its empty texts. */}}
{{- define "mixer.filled" -}}
{{- $filled := dict -}}
{{- range $key, $value := . -}}
{{- if ne (toString $value) "" }}{{ $_ := set $filled $key $value }}{{ end -}}
{{- end -}}
{{- toYaml $filled -}}
{{- end }}

{{/* What a rollout makes of a mix. Arguments: root, config, mix, rollout. */}}
{{- define "mixer.rollout" -}}
{{- $where := printf "rollout.%s" .mix -}}
{{- if not (hasKey .config.mixes .mix) }}{{ fail (printf "%s: config.mixes has no mix of this name" $where) }}{{ end -}}
{{- $old := get .config.mixes .mix -}}
{{- $made := dict -}}
{{- with .rollout.model -}}
{{- include "mixer.isModel" (dict "config" $.config "where" (printf "%s.model" $where) "model" .) -}}
{{- $_ := set $made "model" . -}}
{{- end -}}
{{- with .rollout.canary -}}
{{- if $old.experiment }}{{ fail (printf "%s.canary: config.mixes.%s.experiment splits its traffic already; take one" $where $.mix) }}{{ end -}}
{{- include "mixer.isModel" (dict "config" $.config "where" (printf "%s.canary.model" $where) "model" .model) -}}
{{- $_ := set $made "experiment" (include "mixer.experiment" (dict "root" $.root "config" $.config "canary" .) | fromYaml) -}}
{{- end -}}
{{- with .rollout.shadow -}}
{{- include "mixer.isModel" (dict "config" $.config "where" (printf "%s.shadow.model" $where) "model" .model) -}}
{{- $_ := set $made "shadows" (append (default list $old.shadows) .) -}}
{{- end -}}
{{- toYaml $made -}}
{{- end }}

{{/* Nothing, or a failure where the settings have no such model. Arguments: config, where, model. */}}
{{- define "mixer.isModel" -}}
{{- $models := default dict .config.models -}}
{{- if not (hasKey $models .model) -}}
{{- fail (printf "%s: no model is called %q; there are: %s" .where .model (keys $models | sortAlpha | join ", " | default "none")) -}}
{{- end -}}
{{- end }}

{{/* Two arms, the mix's own model and a canary. Arguments: root, config, canary. */}}
{{- define "mixer.experiment" -}}
{{- $share := divf .canary.percent 100 -}}
{{- $bounds := default dict .canary.bounds -}}
{{- $canary := dict "name" "canary" "share" $share "model" .canary.model "canary" $bounds -}}
{{- $control := dict "name" "control" "share" (subf 1 $share) -}}
{{- /* Another version of the model draws everybody anew; another percentage moves nobody back. */ -}}
{{- $version := dig "version" "" (get .config.models .canary.model) -}}
{{- $salt := default (compact (list .canary.model $version) | join "@") .canary.salt -}}
{{- $made := dict "salt" $salt "arms" (list $control $canary) -}}
{{- with .canary.key }}{{ $_ := set $made "key" . }}{{ end -}}
{{- $kept := ternary (printf "%s/verdicts" .root.Values.persistence.mountPath) "" .root.Values.persistence.enabled -}}
{{- with default $kept .canary.verdicts }}{{ $_ := set $made "verdicts" . }}{{ end -}}
{{- toYaml $made -}}
{{- end }}

{{/* The part of the server's settings that is about TLS. */}}
{{- define "mixer.tls" -}}
tls:
  certificate: /etc/mixer/tls/tls.crt
  key: /etc/mixer/tls/tls.key
  {{- if .Values.tls.requireClientCertificate }}
  client_ca: /etc/mixer/tls/ca.crt
  require_client: true
  {{- end }}
health_listen: 0.0.0.0:{{ .Values.tls.healthPort }}
{{- end }}

{{/* One server setting, so that ports and drain are said once. Arguments: root, key, default (Mixer's own). */}}
{{- define "mixer.serverSetting" -}}
{{- dig "server" .key .default (include "mixer.config" .root | fromYaml) -}}
{{- end }}

{{- define "mixer.grpcPort" -}}
{{- include "mixer.serverSetting" (dict "root" . "key" "listen" "default" ":50051") | splitList ":" | last -}}
{{- end }}

{{- define "mixer.adminPort" -}}
{{- include "mixer.serverSetting" (dict "root" . "key" "admin_listen" "default" ":9464") | splitList ":" | last -}}
{{- end }}

{{/* The port of the plain health service, empty where there is none. */}}
{{- define "mixer.healthPort" -}}
{{- include "mixer.serverSetting" (dict "root" . "key" "health_listen" "default" "") | splitList ":" | last -}}
{{- end }}

{{/* Where kubelets ask for health: they speak no TLS. */}}
{{- define "mixer.probePort" -}}
{{- $health := include "mixer.healthPort" . -}}
{{- if and (not $health) (include "mixer.serverSetting" (dict "root" . "key" "tls" "default" "")) -}}
{{- fail "config.server.tls without config.server.health_listen: probes speak no TLS; set it, or take tls.enabled" -}}
{{- end -}}
{{- default (include "mixer.grpcPort" .) $health -}}
{{- end }}

{{/* The sleep, the drain of calls, then that of the feature log, and a margin. */}}
{{- define "mixer.terminationGracePeriodSeconds" -}}
{{- $config := include "mixer.config" . | fromYaml -}}
{{- $calls := dig "server" "drain_s" 10 $config | float64 | ceil | int -}}
{{- $log := 0 -}}
{{- with $config.feature_log }}{{ $log = dig "drain_s" 5 . | float64 | ceil | int }}{{ end -}}
{{- add .Values.shutdown.preStopSleepSeconds $calls $log .Values.shutdown.marginSeconds -}}
{{- end }}
