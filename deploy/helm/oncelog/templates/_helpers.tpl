{{/* Refuses values that contradict each other, and what Kubernetes would refuse later and less clearly; called with the root. */}}
{{- define "oncelog.check" -}}
{{- if not (regexMatch "^[a-z][-a-z0-9]{0,44}$" .Release.Name) }}
{{- fail (printf "the release's name %q cannot be used: it has to begin with a letter, to go on with small letters, digits and -, and to have at most 45 characters, for Kubernetes puts a hash behind RELEASE-broker and has 63 for both" .Release.Name) }}
{{- end }}
{{- if and .Values.tls.tokensSecret (not .Values.tls.enabled) }}
{{- fail "tls.tokensSecret is set and tls.enabled is not: tokens would be asked from nobody, and travel in plaintext if they were. Set tls.enabled=true, or leave the secret out" }}
{{- end }}
{{- $most := include "oncelog.retention.most" . | int64 }}
{{- if gt (.Values.broker.retentionBytes | int64) $most }}
{{- fail (printf "broker.retentionBytes is %d: of broker.volume.size %s at most three quarters can be used, %d. The rest is for snapshots, spare segments and the active one" (.Values.broker.retentionBytes | int64) .Values.broker.volume.size $most) }}
{{- end }}
{{- if gt (.Values.producer.minReplicas | int) (.Values.producer.maxReplicas | int) }}
{{- fail (printf "producer.minReplicas %d is above producer.maxReplicas %d" (.Values.producer.minReplicas | int) (.Values.producer.maxReplicas | int)) }}
{{- end }}
{{- end }}

{{/* Labels of everything; called with the root. */}}
{{- define "oncelog.labels" -}}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/part-of: oncelog
{{- end }}

{{/* Labels by which pods of one kind are found; called with a list of the root and the kind. */}}
{{- define "oncelog.selector" -}}
app.kubernetes.io/name: oncelog-{{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
{{- end }}

{{/* An image's name; called with a list of the root and the image. */}}
{{- define "oncelog.image" -}}
{{ (index . 1).repository }}:{{ (index . 1).tag | default (index . 0).Chart.AppVersion }}
{{- end }}

{{/* Bytes of the journal: what is said, or three quarters of the volume; called with the root. */}}
{{- define "oncelog.retention" -}}
{{ .Values.broker.retentionBytes | int64 | default (include "oncelog.retention.most" .) }}
{{- end }}
{{- define "oncelog.retention.most" -}}
{{- $units := dict "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $size := .Values.broker.volume.size -}}
{{ mulf (regexFind "^[0-9.]+" $size | float64) (index $units (regexFind "[A-Z]i$" $size)) 0.75 | int64 }}
{{- end }}

{{/* Where and how pods of a kind run; called with its values. */}}
{{- define "oncelog.scheduling" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Who may call the services; called with the root. */}}
{{- define "oncelog.clients" -}}
- podSelector:
    matchLabels:
      {{- include "oncelog.labels" . | nindent 6 }}
- namespaceSelector:
    matchLabels:
      {{- toYaml .Values.clientNamespaceLabels | nindent 6 }}
{{- end }}

{{/* How the services are called, and what Kubernetes calls it; called with the root. */}}
{{- define "oncelog.scheme" -}}
{{ if .Values.tls.enabled }}https{{ else }}http{{ end }}
{{- end }}
{{- define "oncelog.protocol" -}}
{{ if .Values.tls.enabled }}https{{ else }}kubernetes.io/h2c{{ end }}
{{- end }}

{{/* Who issues certificates; called with the root. */}}
{{- define "oncelog.issuer" -}}
name: {{ .Values.tls.issuer.name | default (printf "%s-ca" .Release.Name) }}
kind: {{ .Values.tls.issuer.kind }}
group: cert-manager.io
{{- end }}

{{/* TLS of a service: arguments, mounts, and volumes; called with the root, volumes with a list of the root and the kind. */}}
{{- define "oncelog.tls.args" -}}
- --tls-cert=/etc/oncelog/tls/tls.crt
- --tls-key=/etc/oncelog/tls/tls.key
- --tls-client-ca=/etc/oncelog/tls/ca.crt
- --permissions-file=/etc/oncelog/permissions/permissions
{{- end }}
{{- define "oncelog.tls.mounts" -}}
- name: tls
  mountPath: /etc/oncelog/tls
  readOnly: true
- name: permissions
  mountPath: /etc/oncelog/permissions
  readOnly: true
{{- end }}
{{- define "oncelog.tls.volumes" -}}
- name: tls
  secret:
    secretName: {{ (index . 0).Release.Name }}-{{ index . 1 }}-tls
    defaultMode: 288 # 0440
- name: permissions
  configMap:
    name: {{ (index . 0).Release.Name }}-permissions
{{- end }}

{{/* Tokens beside certificates: argument, mount and volume; called with the root. */}}
{{- define "oncelog.tokens.args" -}}
- --tokens-file=/etc/oncelog/tokens/tokens
{{- end }}
{{- define "oncelog.tokens.mounts" -}}
- name: tokens
  mountPath: /etc/oncelog/tokens
  readOnly: true
{{- end }}
{{- define "oncelog.tokens.volumes" -}}
- name: tokens
  secret:
    secretName: {{ .Values.tls.tokensSecret }}
    defaultMode: 288 # 0440
{{- end }}

{{/* Where traces go; called with the root. */}}
{{- define "oncelog.telemetry" -}}
{{- if and .Values.monitoring.enabled .Values.monitoring.otlpEndpoint -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.pod.name=$(POD_NAME)
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .Values.monitoring.otlpEndpoint }}
# Prometheus scrapes them.
- name: OTEL_METRICS_EXPORTER
  value: none
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ .Values.monitoring.traceRatio | quote }}
{{- end }}
{{- end }}

{{/* The namespace of the collector; called with the root. */}}
{{- define "oncelog.collector" -}}
{{- $end := .Values.monitoring.otlpEndpoint }}
{{- if not (regexMatch "^https?://[a-z0-9-]+\\.[a-z0-9-]+(\\.svc(\\.[a-z0-9.-]+)?)?:[0-9]+$" $end) }}
{{- fail (printf "monitoring.otlpEndpoint %q is not http://SERVICE.NAMESPACE:PORT: the network policy lets traces out to a namespace of this cluster only. Send them to a collector there, and let that send them on" $end) }}
{{- end -}}
{{ regexReplaceAll "^https?://[^.]+\\.([^.:]+).*$" $end "${1}" }}
{{- end }}

{{/* Variables of a service: what the chart says, unless its own values say something else; called with a list of the root and these. */}}
{{- define "oncelog.env" -}}
{{- $own := (index . 1).extraEnv | default list }}
{{- $named := list }}
{{- range $own }}{{ $named = append $named .name }}{{ end }}
{{- $all := list }}
{{- range include "oncelog.telemetry" (index . 0) | fromYamlArray }}
{{- if not (has .name $named) }}{{ $all = append $all . }}{{ end }}
{{- end }}
{{- with concat $all $own -}}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
