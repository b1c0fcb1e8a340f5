{{- define "postern.labels" -}}
app.kubernetes.io/name: postern
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "postern.selector" -}}
app.kubernetes.io/name: postern
app.kubernetes.io/component: control
{{- end }}

{{/* The one webhook configuration of a cluster: two injectors would inject twice. */}}
{{- define "postern.webhook" -}}
admissionReviewVersions: [v1]
failurePolicy: Fail
matchPolicy: Equivalent
sideEffects: None
timeoutSeconds: {{ .Values.webhook.timeoutSeconds }}
{{- end }}

{{- define "postern.excluded" -}}
- key: kubernetes.io/metadata.name
  operator: NotIn
  values: {{ append .Values.webhook.excludedNamespaces .Release.Namespace | uniq | toJson }}
{{- end }}

{{- define "postern.caInjection" -}}
{{- with .Values.webhook.caInjection }}
annotations:
  cert-manager.io/inject-ca-from: {{ . }}
{{- end }}
{{- end }}
