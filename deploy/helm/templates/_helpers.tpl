{{/* What several objects have in common. Each takes a list of the root and a component's name, where it takes more than the root. */}}

{{- define "heartbeat.name" -}}
{{- printf "%s-%s" (index . 0).Release.Name (index . 1) | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "heartbeat.selector" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end }}

{{- define "heartbeat.labels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: {{ .Values.cluster }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "heartbeat.meta" -}}
name: {{ include "heartbeat.name" . }}
labels:
  app.kubernetes.io/name: {{ index . 1 }}
  {{- include "heartbeat.labels" (index . 0) | nindent 2 }}
{{- end }}

{{/* The restricted Pod Security Standard, of a pod and of a container. */}}
{{- define "heartbeat.restrictedPod" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "heartbeat.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "heartbeat.fromSecret" -}}
- name: {{ index . 1 }}
  valueFrom:
    secretKeyRef:
      name: {{ (index . 0).Values.secret }}
      key: {{ index . 1 }}
{{- end }}

{{- define "heartbeat.agent" -}}
name: agent
image: {{ .Values.image }}
command: [heartbeat, agent, --dir, /run/heartbeat]
env:
  {{- include "heartbeat.fromSecret" (list . "HEARTBEAT_REDIS_URL") | nindent 2 }}
resources:
  requests:
    cpu: 10m
    memory: 16Mi
  limits:
    memory: 64Mi
securityContext:
  {{- include "heartbeat.restricted" . | nindent 2 }}
volumeMounts:
  - name: beats
    mountPath: /run/heartbeat
{{- end }}

{{- define "heartbeat.beats" -}}
- name: beats
  {{- if eq .Values.agent "daemonset" }}
  persistentVolumeClaim:
    claimName: {{ include "heartbeat.name" (list . "heartbeat") }}
  {{- else }}
  # In memory: a beat a second costs no disk a write, and none can be full.
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
  {{- end }}
{{- end }}
