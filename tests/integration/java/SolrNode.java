import org.apache.solr.embedded.JettyConfig;
import org.apache.solr.embedded.JettySolrRunner;

/** One Solr node: java -cp JARS SolrNode.java PORT HOME. */
public final class SolrNode {
    public static void main(String[] arguments) throws Exception {
        JettyConfig config = JettyConfig.builder().setPort(Integer.parseInt(arguments[0])).setContext("/solr").build();
        new JettySolrRunner(arguments[1], config).start();
        Thread.currentThread().join();
    }
}
