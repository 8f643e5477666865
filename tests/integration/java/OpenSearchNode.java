import org.codelibs.opensearch.runner.OpenSearchRunner;

/** One OpenSearch node with the k-NN plugin: java -cp JARS OpenSearchNode.java HTTP_PORT TRANSPORT_PORT FOLDER. */
public final class OpenSearchNode {
    public static void main(String[] arguments) throws InterruptedException {
        new OpenSearchRunner().onBuild((number, settings) -> {
            settings.put("http.port", arguments[0]);
            settings.put("transport.port", arguments[1]);
            settings.put("discovery.type", "single-node");
            settings.put("cluster.routing.allocation.disk.threshold_enabled", false);
        }).build(OpenSearchRunner.newConfigs()
                .basePath(arguments[2])
                .clusterName("mixer")
                .numOfNode(1)
                .pluginTypes("org.opensearch.knn.plugin.KNNPlugin"));
        Thread.currentThread().join(); // the node's own threads do not keep the process alive
    }
}
