{{- define "mixer.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Short enough that "-headless" or a backend's name still fits in 63 characters. */}}
{{- define "mixer.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "mixer.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Labels that select pods; they can never change. Argument: dict "root" $ "component" "server". */}}
{{- define "mixer.selectorLabels" -}}
app.kubernetes.io/name: {{ include "mixer.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "mixer.labels" -}}
{{ include "mixer.selectorLabels" . }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "mixer.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "mixer.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "mixer.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "mixer.tlsSecret" -}}
{{- $made := ternary (printf "%s-tls" (include "mixer.fullname" .)) "" .Values.tls.certManager.enabled -}}
{{- default $made .Values.tls.existingSecret | required "tls.enabled without a certificate: set tls.existingSecret or tls.certManager" -}}
{{- end }}

{{- define "mixer.secretName" -}}
{{- default (include "mixer.fullname" .) .Values.secrets.existingSecret -}}
{{- end }}

{{/* What every pod says before its containers. Argument: the root context. */}}
{{- define "mixer.podBase" -}}
serviceAccountName: {{ include "mixer.serviceAccountName" . }}
automountServiceAccountToken: false
{{- /* Kubernetes would set MIXER_PORT and the like for a service named mixer. */}}
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Constraints of spread, each with the labels of its pods where it says none. Arguments: root, component, constraints. */}}
{{- define "mixer.spread" -}}
{{- $selector := dict "matchLabels" (include "mixer.selectorLabels" . | fromYaml) -}}
{{- range .constraints }}
{{ toYaml (list (merge (deepCopy .) (dict "labelSelector" $selector))) }}
{{- end }}
{{- end }}

{{/* OpenTelemetry variables of a container; the user's own resource attributes come first. */}}
{{- define "mixer.otelEnv" -}}
{{- $env := omit .Values.otelEnv "OTEL_RESOURCE_ATTRIBUTES" -}}
{{- $own := "k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME),k8s.node.name=$(NODE_NAME)" -}}
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: OTEL_RESOURCE_ATTRIBUTES
  value: {{ append (compact (list .Values.otelEnv.OTEL_RESOURCE_ATTRIBUTES)) $own | join "," | quote }}
{{- range $name, $value := $env }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- include "mixer.secretEnv" (dict "root" . "name" "OTEL_EXPORTER_OTLP_HEADERS" "optional" true) }}
{{- end }}

{{/* A variable out of the Secret. Arguments: root, name, optional. */}}
{{- define "mixer.secretEnv" }}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ include "mixer.secretName" .root }}
      key: {{ .name }}
      {{- if .optional }}
      optional: true
      {{- end }}
{{- end }}

{{/* A secret given, else the one the cluster holds, else a new one. Arguments: root, given, name. */}}
{{- define "mixer.keptSecret" -}}
{{- if .given -}}
{{- .given -}}
{{- else -}}
{{- $held := lookup "v1" "Secret" .root.Release.Namespace (include "mixer.fullname" .root) -}}
{{- $old := dig "data" .name "" (default dict $held) -}}
{{- if $old -}}{{- b64dec $old -}}{{- else -}}{{- randAlphaNum 48 -}}{{- end -}}
{{- end -}}
{{- end }}

{{/* Whether another sets the count of pods. */}}
{{- define "mixer.isScaled" -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled }}yes{{ end -}}
{{- end }}

{{/* Lifecycle of a container that serves. Arguments: root, given. */}}
{{- define "mixer.lifecycle" -}}
{{- $sleep := .root.Values.shutdown.preStopSleepSeconds -}}
{{- $own := dict -}}
{{- if $sleep -}}
{{- $_ := set $own "preStop" (dict "exec" (dict "command" (list "sleep" (toString $sleep)))) -}}
{{- end -}}
{{- with merge (deepCopy .given) (omit $own (ternary "preStop" "" (hasKey .given "preStop"))) -}}
lifecycle:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end }}

{{/* The settings of one in-chart backend over the defaults, as YAML. Arguments: root, settings. */}}
{{- define "mixer.backend" -}}
{{- mergeOverwrite (deepCopy .root.Values.backendDefaults) (deepCopy .settings) | toYaml -}}
{{- end }}
