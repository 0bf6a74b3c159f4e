{{- /* What do several of the manifests share? */ -}}

{{- define "hmas.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "hmas.labels" -}}
app.kubernetes.io/name: hmas
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "hmas.selector" -}}
app.kubernetes.io/name: hmas
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: hmas-{{ ternary "engine" "controller" (eq .Values.mode "sidecar") }}
{{- end }}

{{- define "hmas.secret" -}}
{{ .Values.token.existingSecret | default (printf "%s-token" (include "hmas.name" .)) }}
{{- end }}

{{- /* Whether the controller asks the Kubernetes API for pods: by a label only. */ -}}
{{- define "hmas.asksForPods" -}}
{{- if and (kindIs "string" .Values.engine.url) (hasPrefix "k8s://" .Values.engine.url) }}yes{{ end }}
{{- end }}

{{- define "hmas.hardened" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "hmas.image" -}}
image: "{{ .repository }}:{{ .tag }}"
imagePullPolicy: {{ .pullPolicy }}
{{- end }}

{{- /* All that the container writes lies in /data (the ledger) and /tmp (caches). */ -}}
{{- define "hmas.writable" -}}
- {name: HOME, value: /tmp}
- {name: HMAS_CACHE, value: /tmp/compiled}
- {name: MPLCONFIGDIR, value: /tmp/matplotlib}
{{- end }}

{{- /* In a server's pod it has no probes and never ends, whatever becomes of the agents in it: a pod with
       a container that is not ready gets no requests, and vLLM serves without a controller, too. */ -}}
{{- define "hmas.controller" -}}
name: controller
{{ include "hmas.image" .Values.controller.image }}
{{- if eq .Values.mode "sidecar" }}
command:
  - sh
  - -c
  - |
    trap 'kill $! ; exit 0' TERM INT
    while true; do
      hmas run --config /etc/hmas/hmas.toml & wait $!
      sleep 5 & wait $!
    done
{{- else }}
args: [run, --config, /etc/hmas/hmas.toml]
startupProbe:
  httpGet: {path: /metrics, port: metrics}
  periodSeconds: 10
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /metrics, port: metrics}
  periodSeconds: 20
  timeoutSeconds: 10
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /metrics, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
{{- end }}
env:
  {{- include "hmas.writable" . | nindent 2 }}
ports:
  - {name: metrics, containerPort: {{ .Values.controller.metricsPort }}}
resources:
  {{- toYaml .Values.controller.resources | nindent 2 }}
securityContext:
  {{- include "hmas.hardened" . | nindent 2 }}
volumeMounts:
  - {name: config, mountPath: /etc/hmas, readOnly: true}
  - {name: token, mountPath: /run/hmas, readOnly: true}
  - {name: data, mountPath: /data}
  - {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "hmas.volumes" -}}
- name: config
  configMap: {name: {{ include "hmas.name" . }}-config}
- name: token
  secret:
    secretName: {{ include "hmas.secret" . }}
    defaultMode: 0440
    items: [{key: token, path: token}]
- {name: tmp, emptyDir: {}}
{{- end }}
