{{- define "labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* What selects the pods of a component: (list $ "router"). */}}
{{- define "selector" -}}
{{- $root := first . -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ last . }}
{{- end }}

{{/* An image's name: (list $ .Values.router.image). */}}
{{- define "image" -}}
{{- $image := last . -}}
{{ $image.repository }}:{{ $image.tag | default (first .).Chart.AppVersion }}
{{- end }}

{{/* Every pod. Service links are off because those of a Service named llm-router would set LLM_ROUTER_PORT. */}}
{{- define "pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Every container. */}}
{{- define "container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Over nodes and zones as evenly as can be: (list $ "router"). */}}
{{- define "spread" -}}
topologySpreadConstraints:
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "selector" $ | nindent 8 }}
  {{- end }}
{{- end }}

{{/* The router's configuration; without one nothing is rendered. */}}
{{- define "config" -}}
{{- required "router.config is empty: give the router's file with --set-file router.config=router.yaml" .Values.router.config -}}
{{- end }}

{{/* From SIGTERM to SIGKILL: the router's own stop_delay_s and drain_s, five seconds that it gives its workers, preStop. */}}
{{- define "graceSeconds" -}}
{{- $server := (include "config" . | fromYaml).server | default dict -}}
{{- $seconds := 15.0 -}}
{{- range $key, $default := dict "stop_delay_s" 0 "drain_s" 30 -}}
  {{- $value := get $server $key | default $default -}}
  {{- if kindIs "string" $value -}}
    {{- fail (printf "router.config: server.%s is %q; in this chart it must be a number, because Kubernetes must wait for it" $key $value) -}}
  {{- end -}}
  {{- $seconds = addf $seconds $value -}}
{{- end -}}
{{- ceil $seconds | int -}}
{{- end }}
