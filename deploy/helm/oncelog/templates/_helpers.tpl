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
