{{- define "cos-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for the longest suffix that a template adds. */}}
{{- define "cos-operator.fullname" -}}
{{- $name := include "cos-operator.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 45 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "cos-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "cos-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Not for the pod template: a label with a version would restart the operator for a new version of the chart alone. */}}
{{- define "cos-operator.labels" -}}
{{ include "cos-operator.selectorLabels" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: cos-operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "cos-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "cos-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "cos-operator.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The namespaces whose stacks the operator reconciles, separated by commas; empty for all. */}}
{{- define "cos-operator.namespaces" -}}
{{- if .Values.watch.clusterWide -}}
{{- if .Values.watch.namespaces -}}
{{- fail "watch.clusterWide: true and watch.namespaces exclude each other: remove one of them" -}}
{{- end -}}
{{- else -}}
{{- default (list .Release.Namespace) .Values.watch.namespaces | uniq | sortAlpha | join "," -}}
{{- end -}}
{{- end -}}

{{- define "cos-operator.subject" -}}
- kind: ServiceAccount
  name: {{ include "cos-operator.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}

{{/* "yes" if an object of the Prometheus Operator is to be rendered, by the words Auto, Always, Never: Auto needs the
     kind's definition, and the Service, without which nothing is scraped. */}}
{{- define "cos-operator.monitored" -}}
{{- $has := .root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .kind) -}}
{{- $auto := and (eq .enabled "Auto") $has .root.Values.metrics.service.enabled -}}
{{- if or (eq .enabled "Always") $auto -}}yes{{- end -}}
{{- end -}}
