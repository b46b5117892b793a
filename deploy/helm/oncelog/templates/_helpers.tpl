{{/* Labels of everything; called with the root. */}}
{{- define "oncelog.labels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: oncelog
{{- end }}

{{/* Labels by which pods of one kind are found; called with a list of the root and the kind. */}}
{{- define "oncelog.selector" -}}
app.kubernetes.io/name: oncelog-{{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end }}

{{/* An image's name; called with a list of the root and the image. */}}
{{- define "oncelog.image" -}}
{{ (index . 1).repository }}:{{ (index . 1).tag | default (index . 0).Chart.AppVersion }}
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
env:
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
