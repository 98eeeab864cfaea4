{{/*
A pod's template. Takes `root`, `component`, `args`, `values` (of the component), `env`, `volumes`, `mounts`, and `pool` for a worker.
What is set at the component counts before what `pod` sets for all.
*/}}
{{- define "materializer.pod" -}}
{{- $root := .root -}}
{{- $pod := merge (deepCopy .values) $root.Values.pod -}}
{{- $scheme := include "materializer.scheme" $root -}}
metadata:
  labels:
    {{- include "materializer.labels" . | nindent 4 }}
    {{- with $pod.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/settings: {{ include "materializer.settings" $root | sha256sum }}
    {{- if eq $root.Values.metrics.discovery "annotations" }}
    prometheus.io/scrape: "true"
    prometheus.io/port: "8080"
    prometheus.io/path: /metrics
    prometheus.io/scheme: {{ $scheme | lower }}
    {{- end }}
    {{- with $pod.annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "materializer.serviceAccount" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $pod.terminationGracePeriodSeconds }}
  securityContext:
    {{- toYaml $root.Values.podSecurityContext | nindent 4 }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" "runtimeClassName" "initContainers" }}
  {{- with get $pod $key }}
  {{ $key }}: {{- if kindIs "string" . }} {{ . }}{{ else }}{{ tpl (toYaml .) $root | nindent 4 }}{{ end }}
  {{- end }}
  {{- end }}
  {{- with $pod.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    - {{- $selector := dict "labelSelector" (dict "matchLabels" (include "materializer.selector" $ | fromYaml)) }}
      {{- toYaml (merge (deepCopy .) $selector) | nindent 6 }}
    {{- end }}
  {{- end }}
  containers:
    - name: materializer
      image: {{ include "materializer.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: {{ concat (list .component) .args (list "--config" "/etc/materializer/materializer.yaml") | toJson }}
      securityContext:
        {{- toYaml $root.Values.securityContext | nindent 8 }}
      env:
        - {name: MATERIALIZER__LOG__FORMAT, value: json}
        - name: POD_IP
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
        {{- with .env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- with $pod.extraEnv }}
        {{- tpl (toYaml .) $root | nindent 8 }}
        {{- end }}
      {{- with $pod.extraEnvFrom }}
      envFrom:
        {{- tpl (toYaml .) $root | nindent 8 }}
      {{- end }}
      ports:
        - {name: http, containerPort: 8080}
        {{- if eq .component "gateway" }}
        - {name: redis, containerPort: 6380}
        {{- end }}
      # Until the catalog can be read nobody listens: Kafka has five minutes to come.
      startupProbe:
        httpGet: {path: /livez, port: http, scheme: {{ $scheme }}}
        periodSeconds: 5
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /livez, port: http, scheme: {{ $scheme }}}
        periodSeconds: 10
        failureThreshold: 6
      # Never about lag: that is a gate, a metric, and `materializer wait`.
      readinessProbe:
        httpGet: {path: /readyz, port: http, scheme: {{ $scheme }}}
        periodSeconds: 5
      {{- with $pod.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - {name: settings, mountPath: /etc/materializer, readOnly: true}
        - {name: data, mountPath: /data}
        - {name: tmp, mountPath: /tmp}
        {{- with .mounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- include "materializer.secretMounts" $root | nindent 8 }}
        {{- with $pod.extraVolumeMounts }}
        {{- tpl (toYaml .) $root | nindent 8 }}
        {{- end }}
    {{- with $pod.extraContainers }}
    {{- tpl (toYaml .) $root | nindent 4 }}
    {{- end }}
  volumes:
    - name: settings
      configMap: {name: {{ include "materializer.fullname" $root }}-settings}
    - name: tmp
      emptyDir: {sizeLimit: 64Mi}
    {{- with .volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- include "materializer.secretVolumes" $root | nindent 4 }}
    {{- with $pod.extraVolumes }}
    {{- tpl (toYaml .) $root | nindent 4 }}
    {{- end }}
{{- end -}}
